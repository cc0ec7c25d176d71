//! What is shown to a customer whose external ID is to change: the two updates of the stack (or of the StackSet), one command each.

use contracts::{EnrollmentId, ExternalId, Region, StackId, enrollment::EnrollmentKind};
use serde_json::{Value, json};
use url::Url;

use crate::offer::{shell_quoted, stack_name};

/// The template's parameters that the updates leave as they are.
const KEPT: [&str; 5] = ["CallbackToken", "CallbackTopicArn", "PrincipalRoleArn", "CostBucket", "CostPrefix"];

/// Everything that the updates are made of.
#[derive(Debug)]
pub struct Change<'a> {
    pub enrollment: EnrollmentId,
    pub kind: EnrollmentKind,
    pub region: &'a Region,
    /// Of the connections; a StackSet is known by its name instead.
    pub stacks: &'a [StackId],
    /// Given with each update, so that a stack of an older template gets the one with both parameters.
    pub template: &'a Url,
    pub old: &'a ExternalId,
    pub new: &'a ExternalId,
}

impl Change<'_> {
    /// The trust policy names both.
    #[must_use]
    pub fn begin(&self) -> Vec<String> {
        self.commands(self.old.as_str())
    }

    /// The trust policy names the new one alone.
    #[must_use]
    pub fn finish(&self) -> Vec<String> {
        self.commands("")
    }

    fn commands(&self, previous: &str) -> Vec<String> {
        match self.kind {
            EnrollmentKind::Account => self
                .stacks
                .iter()
                .map(|stack| self.command("update-stack --stack-name", &stack.to_string(), previous))
                .collect(),
            EnrollmentKind::Organization => {
                vec![self.command("update-stack-set --stack-set-name", &stack_name(self.enrollment), previous)]
            }
        }
    }

    fn command(&self, action: &str, name: &str, previous: &str) -> String {
        format!(
            "aws cloudformation {action} {} --region {} --template-url {} --capabilities CAPABILITY_NAMED_IAM --parameters {}",
            shell_quoted(name),
            shell_quoted(self.region.as_str()),
            shell_quoted(self.template.as_str()),
            shell_quoted(&self.parameters(previous)),
        )
    }

    fn parameters(&self, previous: &str) -> String {
        let set = [("ExternalId", self.new.as_str()), ("PreviousExternalId", previous)];
        let set = set.map(|(name, value)| json!({ "ParameterKey": name, "ParameterValue": value }));
        let kept = KEPT.map(|name| json!({ "ParameterKey": name, "UsePreviousValue": true }));
        Value::Array(set.into_iter().chain(kept).collect()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: &str = "arn:aws:cloudformation:eu-central-1:222222222222:stack/mine/0b9f";

    fn commands(kind: EnrollmentKind) -> (Vec<String>, Vec<String>) {
        let id = |text| ExternalId::parse(text).unwrap();
        let (old, new) = (id("old=1"), id("new"));
        let change = Change {
            enrollment: EnrollmentId::new(),
            kind,
            region: &Region::parse("eu-central-1").unwrap(),
            stacks: &[StackId::parse(STACK).unwrap()],
            template: &Url::parse("https://templates.example/customer.yaml").unwrap(),
            old: &old,
            new: &new,
        };
        (change.begin(), change.finish())
    }

    /// The parameters that a command sets; those that it keeps have none.
    fn parameters(command: &str) -> Vec<(String, Option<String>)> {
        let json = command.split_once("--parameters ").unwrap().1.trim_matches('\'');
        let list: Vec<Value> = serde_json::from_str(json).unwrap();
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        list.iter().map(|entry| (text(&entry["ParameterKey"]).unwrap(), text(&entry["ParameterValue"]))).collect()
    }

    #[test]
    fn the_stack_is_updated_twice_and_keeps_everything_else() {
        let (begin, finish) = commands(EnrollmentKind::Account);
        for (commands, previous) in [(begin, "old=1"), (finish, "")] {
            let [command] = commands.as_slice() else { panic!("{commands:?}") };
            assert!(
                command.starts_with(&format!("aws cloudformation update-stack --stack-name {STACK} ")),
                "{command}"
            );
            assert!(command.contains("--template-url https://templates.example/customer.yaml "), "{command}");
            let given = parameters(command);
            assert!(given.contains(&("ExternalId".to_owned(), Some("new".to_owned()))), "{given:?}");
            assert!(given.contains(&("PreviousExternalId".to_owned(), Some(previous.to_owned()))), "{given:?}");
            for kept in KEPT {
                assert!(given.contains(&(kept.to_owned(), None)), "{kept} is kept");
            }
        }
    }

    #[test]
    fn every_parameter_of_the_template_is_set_or_kept() {
        let template = include_str!("../../../deploy/aws/customer.yaml");
        let parameters_section = template.split_once("\nParameters:\n").unwrap().1;
        let of_template = parameters_section
            .lines()
            .take_while(|line| line.is_empty() || line.starts_with(' '))
            .filter(|line| line.starts_with("  ") && !line.starts_with("   ") && line.ends_with(':'))
            .map(|line| line.trim().trim_end_matches(':').to_owned());
        let (begin, _) = commands(EnrollmentKind::Account);
        let mut given: Vec<_> = parameters(&begin[0]).into_iter().map(|(name, _)| name).collect();
        let mut of_template: Vec<_> = of_template.collect();
        given.sort_unstable();
        of_template.sort_unstable();
        assert_eq!(given, of_template);
    }

    #[test]
    fn an_organization_updates_its_stack_set() {
        let (begin, finish) = commands(EnrollmentKind::Organization);
        for commands in [begin, finish] {
            let [command] = commands.as_slice() else { panic!("{commands:?}") };
            assert!(
                command.starts_with("aws cloudformation update-stack-set --stack-set-name rolebridge-"),
                "{command}"
            );
        }
    }
}
