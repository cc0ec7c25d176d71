use super::*;

#[test]
fn the_reason_says_what_to_do() {
    let mended = reason(&[Drift::RoleTrust, Drift::AccessKeyForeign], None);
    assert!(mended.contains("trust policy was changed; there was an access key"), "{mended}");
    assert!(mended.contains("All is set again"), "{mended}");
    for drift in [Drift::RoleMissing, Drift::RoleReplaced] {
        assert!(!can_be_mended(&[Drift::RolePolicy, drift]));
        let replaced = reason(&[drift], None);
        assert!(replaced.contains("updating its stack") && !replaced.contains("All is set"), "{replaced}");
    }
    let failed = reason(&[Drift::UserMissing], Some("IAM did not make the user"));
    assert!(failed.contains("could not be set right: IAM did not make the user"), "{failed}");
}
