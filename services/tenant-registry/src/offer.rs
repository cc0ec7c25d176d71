//! What is shown to a customer: the quick-create link, the commands, the parameters. Pure text making; every value is quoted for where it goes.
//!
//! The callback token is not in the link. CloudFormation ignores `NoEcho` parameters there
//! ([quick-create links](https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cfn-console-create-stacks-quick-create-links.html)), and a
//! secret has no business in an address that browsers remember: the customer pastes it into the one field that the link leaves empty.

use std::collections::BTreeMap;

use contracts::{
    CallbackToken, EnrollmentId, ExternalId, RoleArn, TopicArn, costs::ExportLocation, enrollment::EnrollmentKind,
};
use url::Url;

/// The template's parameter for the token: the one that the link cannot carry.
pub const TOKEN_PARAMETER: &str = "CallbackToken";

/// Everything that an offer is made of.
#[derive(Debug)]
pub struct Terms<'a> {
    pub enrollment: EnrollmentId,
    pub kind: EnrollmentKind,
    pub external_id: &'a ExternalId,
    pub token: &'a CallbackToken,
    pub topic: &'a TopicArn,
    pub principal: &'a RoleArn,
    pub template: &'a Url,
    pub cost_export: Option<&'a ExportLocation>,
}

impl Terms<'_> {
    /// The stack's parameters, as `deploy/aws/customer.yaml` names them.
    #[must_use]
    pub fn parameters(&self) -> BTreeMap<String, String> {
        let mut parameters = BTreeMap::from([
            ("ExternalId".to_owned(), self.external_id.as_str().to_owned()),
            (TOKEN_PARAMETER.to_owned(), self.token.expose().to_owned()),
            ("CallbackTopicArn".to_owned(), self.topic.to_string()),
            ("PrincipalRoleArn".to_owned(), self.principal.to_string()),
        ]);
        if let Some(export) = self.cost_export {
            parameters.insert("CostBucket".to_owned(), export.bucket.clone());
            parameters.insert("CostPrefix".to_owned(), export.prefix.clone());
        }
        parameters
    }

    #[must_use]
    pub fn stack_name(&self) -> String {
        stack_name(self.enrollment)
    }

    /// Opens the console on a filled-in form, all but the token.
    #[must_use]
    pub fn quick_create_url(&self) -> String {
        let region = self.topic.region();
        let console = match region.partition().as_str() {
            "aws-cn" => "console.amazonaws.cn",
            "aws-us-gov" => "console.amazonaws-us-gov.com",
            "aws-eusc" => "console.amazonaws-eusc.eu",
            _ => "console.aws.amazon.com",
        };
        let mut url = format!(
            "https://{region}.{console}/cloudformation/home?region={region}#/stacks/create/review?templateURL={}&stackName={}",
            percent_encoded(self.template.as_str()),
            percent_encoded(&self.stack_name()),
        );
        for (name, value) in self.parameters().iter().filter(|(name, _)| *name != TOKEN_PARAMETER) {
            url.push_str(&format!("&param_{}={}", percent_encoded(name), percent_encoded(value)));
        }
        url
    }

    /// Commands for a POSIX shell, one a line, to be run in this order.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        match self.kind {
            EnrollmentKind::Account => vec![self.command("create-stack", "--stack-name", "")],
            EnrollmentKind::Organization => self.stack_set_commands(),
        }
    }

    fn command(&self, action: &str, name_option: &str, rest: &str) -> String {
        format!(
            "aws cloudformation {action} --region {} {name_option} {} --template-url {} --capabilities CAPABILITY_NAMED_IAM --parameters {}{rest}",
            shell_quoted(self.topic.region().as_str()),
            shell_quoted(&self.stack_name()),
            shell_quoted(self.template.as_str()),
            shell_quoted(&self.parameter_list()),
        )
    }

    /// Service-managed permissions put the stack into every account of the organization, and into those that join later.
    fn stack_set_commands(&self) -> Vec<String> {
        let region = shell_quoted(self.topic.region().as_str());
        let name = shell_quoted(&self.stack_name());
        let managed =
            " --permission-model SERVICE_MANAGED --auto-deployment Enabled=true,RetainStacksOnAccountRemoval=false";
        vec![
            self.command("create-stack-set", "--stack-set-name", managed),
            "ROOT=$(aws organizations list-roots --query 'Roots[0].Id' --output text)".to_owned(),
            format!(
                "aws cloudformation create-stack-instances --region {region} --stack-set-name {name} \
                 --deployment-targets \"OrganizationalUnitIds=$ROOT\" --regions {region}"
            ),
        ]
    }

    /// The parameters as the JSON that `--parameters` takes: its shorthand would break on commas and equals signs.
    fn parameter_list(&self) -> String {
        let list: Vec<_> = self
            .parameters()
            .into_iter()
            .map(|(name, value)| serde_json::json!({ "ParameterKey": name, "ParameterValue": value }))
            .collect();
        serde_json::Value::Array(list).to_string()
    }
}

/// A name that tells stacks of several offers apart: `rolebridge-` and the end of the enrollment's ID.
pub(crate) fn stack_name(enrollment: EnrollmentId) -> String {
    let id = enrollment.to_string();
    format!("rolebridge-{}", id.rsplit('-').next().unwrap_or_default())
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// One word for a POSIX shell, whatever it holds.
pub(crate) fn shell_quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:/=@%+,".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn terms<'a>(kind: EnrollmentKind, parts: &'a Parts, cost_export: Option<&'a ExportLocation>) -> Terms<'a> {
        Terms {
            enrollment: parts.enrollment,
            kind,
            external_id: &parts.external_id,
            token: &parts.token,
            topic: &parts.topic,
            principal: &parts.principal,
            template: &parts.template,
            cost_export,
        }
    }

    struct Parts {
        enrollment: EnrollmentId,
        external_id: ExternalId,
        token: CallbackToken,
        topic: TopicArn,
        principal: RoleArn,
        template: Url,
    }

    fn parts(region: &str, external_id: &str) -> Parts {
        Parts {
            enrollment: EnrollmentId::new(),
            external_id: ExternalId::parse(external_id).unwrap(),
            token: CallbackToken::generate(),
            topic: TopicArn::parse(&format!("arn:aws:sns:{region}:111111111111:rolebridge-callbacks")).unwrap(),
            principal: RoleArn::parse("arn:aws:iam::111111111111:role/rolebridge/tenant-7f3a").unwrap(),
            template: Url::parse("https://bucket.s3.eu-central-1.amazonaws.com/customer.yaml?versionId=a+b").unwrap(),
        }
    }

    /// The console's own reading: what follows `#`, as a path and a query.
    fn query_of(link: &str) -> BTreeMap<String, String> {
        let fragment = Url::parse(link).unwrap().fragment().unwrap().to_owned();
        let query = fragment.strip_prefix("/stacks/create/review?").unwrap();
        query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(name, value)| (unescaped(name), unescaped(value)))
            .collect()
    }

    fn unescaped(text: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            if byte == b'%' {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            } else {
                bytes.push(byte);
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_link_fills_in_everything_but_the_token() {
        let parts = parts("eu-central-1", "7c0e2a52-2a29-4a4c-9d7f-1f3f0ac3c9a1");
        let export = ExportLocation { bucket: "costs".to_owned(), prefix: "a/b c".to_owned() };
        let terms = terms(EnrollmentKind::Account, &parts, Some(&export));
        let link = terms.quick_create_url();
        assert!(
            link.starts_with("https://eu-central-1.console.aws.amazon.com/cloudformation/home?region=eu-central-1#"),
            "{link}"
        );
        assert!(!link.contains(parts.token.expose()));
        let mut expected: BTreeMap<_, _> = terms
            .parameters()
            .into_iter()
            .filter(|(name, _)| name != TOKEN_PARAMETER)
            .map(|(name, value)| (format!("param_{name}"), value))
            .collect();
        expected.insert("templateURL".to_owned(), parts.template.to_string());
        expected.insert("stackName".to_owned(), terms.stack_name());
        assert_eq!(query_of(&link), expected);
    }

    #[test]
    fn each_partition_has_its_own_console() {
        for (region, host) in
            [("cn-north-1", "console.amazonaws.cn"), ("us-gov-west-1", "console.amazonaws-us-gov.com")]
        {
            let link = terms(EnrollmentKind::Account, &parts(region, "id"), None).quick_create_url();
            assert_eq!(Url::parse(&link).unwrap().host_str(), Some(format!("{region}.{host}").as_str()));
        }
    }

    #[test]
    fn an_organization_gets_stack_set_commands() {
        let parts = parts("eu-central-1", "id");
        let commands = terms(EnrollmentKind::Organization, &parts, None).commands();
        let [set, root, instances] = commands.as_slice() else { panic!("{commands:?}") };
        assert!(
            set.contains("create-stack-set") && set.contains("SERVICE_MANAGED") && set.contains(parts.token.expose())
        );
        assert!(root.contains("list-roots") && instances.contains("create-stack-instances"));
        assert!(commands.iter().all(|command| !command.contains('\n')));
    }

    /// What `sh` makes of a line whose words are unquoted or in single quotes.
    fn words(line: &str) -> Vec<String> {
        let output = std::process::Command::new("sh").arg("-c").arg(format!("printf '%s\\0' {line}")).output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn the_shell_reads_the_command_as_it_is_meant() {
        let parts = parts("eu-central-1", "a=b,c@d+e");
        let terms = terms(EnrollmentKind::Account, &parts, None);
        let words = words(&terms.commands()[0]);
        assert_eq!(&words[..3], ["aws", "cloudformation", "create-stack"]);
        let given = &words[words.iter().position(|word| word == "--parameters").unwrap() + 1];
        let list: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(given).unwrap();
        let read: BTreeMap<String, String> = list
            .iter()
            .map(|entry| {
                (
                    entry["ParameterKey"].as_str().unwrap().to_owned(),
                    entry["ParameterValue"].as_str().unwrap().to_owned(),
                )
            })
            .collect();
        assert_eq!(read, terms.parameters());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_word_survives_the_shell(word in "[^\0]{0,40}") {
            prop_assert_eq!(words(&shell_quoted(&word)), vec![word]);
        }
    }

    proptest! {
        #[test]
        fn any_text_survives_the_link(text in "\\PC{0,60}") {
            let encoded = percent_encoded(&text);
            prop_assert!(encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
            prop_assert_eq!(unescaped(&encoded), text);
        }
    }
}
