//! What the demo does beside asking the registry.

use anyhow::Result;
use contracts::credentials::SealedCredentials;
use sandbox::{CallerIdentity, NatsUser, REGION, System};

use super::{report::Report, screen::Screen};

/// Mallory's template: no role of her own, only a custom resource that claims somebody else's. It takes the parameters of an offer as they are.
pub(crate) const CLAIM_ANOTHERS_ROLE: &str = include_str!("claim-anothers-role.yaml");

/// Whom the credentials speak for, in STS's own words.
pub(crate) async fn caller_identity(system: &System, credentials: &SealedCredentials) -> Result<CallerIdentity> {
    let (secret, token) = (credentials.secret_access_key.expose(), credentials.session_token.expose());
    let key = aws_credential_types::Credentials::new(
        &credentials.access_key_id,
        secret,
        Some(token.to_owned()),
        None,
        "rolebridge",
    );
    Ok(system.emulator.caller_identity(REGION, key).await?)
}

/// What a person needs to go on alone.
pub(crate) fn how_to_reach(system: &System, report: &Report, screen: &mut Screen) -> Result<()> {
    let seed = system.nats.seed_file(NatsUser::Operator);
    screen.line("\neverything is left running; Ctrl-C ends it\n");
    screen.line(&format!(
        "  NATS             {} (nkey seeds: {}/<user>.nk)",
        system.nats.url(),
        seed.parent().unwrap_or(&seed).display()
    ));
    screen.line(&format!(
        "  AWS emulator     {} (an account's 12 digits are its root's access key)",
        system.emulator.endpoint()
    ));
    for (service, address) in system.health_addresses() {
        screen.line(&format!("  {:<16} http://{address}/readyz and /metrics", service.name()));
    }
    screen.line(&format!("  data             {}", system.folder().display()));
    let programs = std::env::current_exe()?;
    let programs = programs.parent().unwrap_or(&programs).display();
    screen.line("\ntry:");
    screen.line(&format!(
        "  export ROLEBRIDGE_NATS_URL={} ROLEBRIDGE_NATS_SEED_FILE={}",
        system.nats.url(),
        seed.display()
    ));
    screen.line(&format!("  export ROLEBRIDGE_SEALING_KEY={}", system.sealing_key()));
    screen.line(&format!("  {programs}/rolebridge tenants list"));
    screen.line(&format!("  {programs}/rolebridge connections list {}", report.tenant));
    screen.line(&format!(
        "  {programs}/rolebridge connections show {} {}",
        report.tenant, report.connection.connection_id
    ));
    screen.line(&format!("  {programs}/rolebridge costs {}", report.tenant));
    screen.line(&format!("  {programs}/rolebridge audit list {}", report.tenant));
    Ok(())
}

/// The last `most` warnings and errors in the services' JSON logs.
pub(crate) fn complaints(logs: &str, most: usize) -> Vec<String> {
    let complaint = |line: &&str| line.contains(r#""level":"WARN""#) || line.contains(r#""level":"ERROR""#);
    let mut lines: Vec<String> = logs.lines().filter(complaint).map(ToOwned::to_owned).collect();
    lines.sort();
    lines.split_off(lines.len().saturating_sub(most))
}
