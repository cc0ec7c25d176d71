//! Users that belong to no service, limited to some tenants.

use contracts::{Audience, Stream, TenantId, catalog, credentials::Purpose};

use crate::{Key, Right, User, UserName, matrix};

/// A stream that cannot be read by tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("events of {entity} do not name a tenant in their subject: they cannot be limited to tenants")]
pub struct NotByTenant {
    entity: &'static str,
}

/// What the events of a stream are about: `connection`.
#[must_use]
pub fn entity(stream: Stream) -> &'static str {
    stream.subjects().split('.').nth(3).unwrap_or_default()
}

/// The stream of the events about `entity`.
#[must_use]
pub fn stream_of(name: &str) -> Option<Stream> {
    matrix::public_streams().into_iter().find(|stream| entity(*stream) == name)
}

/// A job that may ask for these purposes, of these tenants' connections.
#[must_use]
pub fn job(name: &UserName, key: String, purposes: &[Purpose], tenants: &[TenantId]) -> User {
    let ask = |purpose: &Purpose, tenant: &TenantId| Right::Ask(matrix::issue(*purpose, &tenant.to_string()));
    let rights = purposes.iter().flat_map(|purpose| tenants.iter().map(move |tenant| ask(purpose, tenant))).collect();
    let names: Vec<&str> = purposes.iter().map(|purpose| purpose.as_str()).collect();
    let about = format!("A job: asks for {} of {} tenant(s).", names.join(", "), tenants.len());
    User { name: name.to_string(), about, key: Key::Public(key), rights }
}

/// A reader of these streams; of these tenants alone, if there are any. Streams that cannot be read by tenant are refused then.
///
/// # Errors
/// [`NotByTenant`].
pub fn reader(name: &UserName, key: String, streams: &[Stream], tenants: &[TenantId]) -> Result<User, NotByTenant> {
    let mut rights = Vec::new();
    for stream in streams {
        if tenants.is_empty() {
            rights.push(Right::Read(*stream));
        }
        for tenant in tenants {
            let filter = filter(*stream, *tenant).ok_or(NotByTenant { entity: entity(*stream) })?;
            rights.push(Right::ReadOnly { stream: *stream, consumer: consumer(name, *tenant), filter });
        }
    }
    rights.push(Right::AccountInfo);
    let entities: Vec<&str> = streams.iter().map(|stream| entity(*stream)).collect();
    let of = if tenants.is_empty() { "all tenants".to_owned() } else { format!("{} tenant(s)", tenants.len()) };
    let about = format!("A reader of events of {}, of {of}.", entities.join(", "));
    Ok(User { name: name.to_string(), about, key: Key::Public(key), rights })
}

/// The one name that a reader's consumer for this tenant may have, on each stream. A name that could be chosen could be a service's.
#[must_use]
pub fn consumer(name: &UserName, tenant: TenantId) -> String {
    format!("{name}-{tenant}")
}

/// Whether the stream's events can be read by tenant.
#[must_use]
pub fn names_tenants(stream: Stream) -> bool {
    filter(stream, TenantId::new()).is_some()
}

/// The one subject that stands for all events of this tenant in the stream, if there is one.
#[must_use]
pub fn filter(stream: Stream, tenant: TenantId) -> Option<String> {
    let stored = catalog::messages().into_iter().filter(|message| message.stream == stream);
    let mut filters = stored.map(|message| {
        let by_tenant = message.audience == Audience::Public && message.keys.first() == Some(&"tenant");
        let event = message.subject.split('.').nth(4)?;
        let any_event = message.subject.replacen(&format!(".{event}."), ".?.", 1);
        by_tenant.then(|| any_event.replacen('*', &tenant.to_string(), 1).replace('?', "*"))
    });
    let first = filters.next()??;
    filters.all(|filter| filter.as_ref() == Some(&first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> UserName {
        "team-a".parse().unwrap()
    }

    #[test]
    fn a_filter_holds_the_tenant_where_the_subject_has_it() {
        let tenant = TenantId::new();
        let of = |stream| filter(stream, tenant);
        assert_eq!(of(Stream::ConnectionEvents), Some(format!("rolebridge.events.v1.connection.*.{tenant}.*")));
        assert_eq!(of(Stream::TenantEvents), Some(format!("rolebridge.events.v1.tenant.*.{tenant}")));
        assert_eq!(of(Stream::AuditEvents), None);
        assert_eq!(of(Stream::Grants), None);
    }

    #[test]
    fn what_does_not_name_a_tenant_is_not_given_to_a_reader_of_some_tenants() {
        let refused = reader(&name(), "U".to_owned(), &[Stream::AuditEvents], &[TenantId::new()]);
        assert!(refused.is_err());
        assert!(reader(&name(), "U".to_owned(), &[Stream::AuditEvents], &[]).is_ok());
    }

    #[test]
    fn a_job_of_one_tenant_may_ask_for_that_one_alone() {
        let (mine, other) = (TenantId::new(), TenantId::new());
        let user = job(&name(), "U".to_owned(), &[Purpose::CostRead], &[mine]);
        assert!(user.may_publish(&format!("rolebridge.rpc.v1.credentials.issue.cost-read.{mine}.c")));
        assert!(!user.may_publish(&format!("rolebridge.rpc.v1.credentials.issue.cost-read.{other}.c")));
        assert!(!user.may_publish(&format!("rolebridge.rpc.v1.credentials.issue.admin.{mine}.c")));
        assert_eq!(user.subscribe(), ["_INBOX_team-a.>"]);
    }
}
