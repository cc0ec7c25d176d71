//! Each rule of [`super`] broken on its own, and the whole range of them for the one that must never fail: no token, no effect.

use contracts::{
    ExternalId, SealedBox, Timestamp, TokenHash, TopicArn,
    callback::{CallbackKey, RequestType, ReturnAddress},
};
use proptest::prelude::*;

use super::*;

const STACK: &str = "arn:aws:cloudformation:eu-central-1:222222222222:stack/rolebridge/0b9f";

fn stack(text: &str) -> StackId {
    StackId::parse(text).unwrap()
}

fn role(text: &str) -> RoleArn {
    RoleArn::parse(text).unwrap()
}

fn regions() -> Vec<Region> {
    vec![Region::parse("eu-central-1").unwrap(), Region::parse("cn-north-1").unwrap()]
}

fn external_id() -> ExternalId {
    ExternalId::parse("7c0e2a52-2a29-4a4c-9d7f-1f3f0ac3c9a1").unwrap()
}

fn ids() -> OfferedIds {
    OfferedIds { current: external_id(), next: None }
}

fn claims() -> Claims {
    Claims {
        external_id: external_id(),
        previous_external_id: None,
        token_hash: TokenHash::from_stored("a".repeat(64)),
        role_arn: role("arn:aws:iam::222222222222:role/rolebridge/r"),
        account: AccountId::parse("222222222222").unwrap(),
        region: Region::parse("eu-central-1").unwrap(),
        cost_export: None,
        template_version: None,
    }
}

fn callback(request_type: RequestType) -> CallbackReceived {
    CallbackReceived {
        key: CallbackKey { stack_id: stack(STACK), request_id: "r".to_owned() },
        request_type,
        physical_resource_id: None,
        claims: None,
        return_address: ReturnAddress {
            logical_resource_id: "Connection".to_owned(),
            sealed_url: SealedBox::from_bytes(b"x"),
        },
        topic: TopicArn::parse("arn:aws:sns:eu-central-1:111111111111:t").unwrap(),
        received_at: Timestamp::now(),
    }
}

fn offer() -> OfferFacts {
    OfferFacts {
        kind: EnrollmentKind::Account,
        state: EnrollmentState::Open,
        token_matches: true,
        bound_stack: None,
        account: None,
        tenant: TenantState::Active,
        ids: ids(),
        principal: Some(role("arn:aws:iam::111111111111:role/rolebridge/t")),
        stack_connected: false,
        account_connected: false,
        refusals: 0,
    }
}

fn connection() -> ConnectionFacts {
    ConnectionFacts {
        state: ConnectionState::Verified,
        stack: stack(STACK),
        token_matches: true,
        ids: Ids { own: external_id(), previous: None, rotation: None, offered: ids() },
        tenant: TenantState::Active,
        principal: offer().principal,
    }
}

fn created(change: impl FnOnce(&mut OfferFacts, &mut Claims, &mut CallbackReceived)) -> Decision {
    let (mut facts, mut claims, mut callback) = (offer(), claims(), callback(RequestType::Create));
    change(&mut facts, &mut claims, &mut callback);
    create(&callback, &claims, Some(&facts), &regions())
}

fn refused(decision: Decision) -> &'static str {
    match decision {
        Decision::Refuse(refusal) => refusal.word(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_right_create_is_verified() {
    assert_eq!(created(|_, _, _| ()), Decision::Verify);
    assert_eq!(created(|facts, claims, _| facts.account = Some(claims.account.clone())), Decision::Verify);
}

#[test]
fn a_stranger_is_told_the_same_whatever_he_lacks() {
    let unknown = create(&callback(RequestType::Create), &claims(), None, &regions());
    let wrong_token = created(|facts, _, _| facts.token_matches = false);
    assert_eq!(unknown, Decision::Stranger(Refusal::NoSuchOffer));
    assert_eq!(unknown, wrong_token);
}

#[test]
fn an_offer_that_does_not_stand() {
    let other = || stack("arn:aws:cloudformation:eu-central-1:222222222222:stack/rolebridge/ffff");
    assert_eq!(refused(created(|f, _, _| f.state = EnrollmentState::Cancelled)), "offer-cancelled");
    assert_eq!(refused(created(|f, _, _| f.state = EnrollmentState::Expired)), "offer-expired");
    let used_by = |by: StackId| created(|f, _, _| (f.state, f.bound_stack) = (EnrollmentState::Used, Some(by)));
    assert_eq!(refused(used_by(other())), "offer-used");
    assert_eq!(refused(used_by(stack(STACK))), "stack-connected");
    assert_eq!(refused(created(|f, _, _| f.tenant = TenantState::Suspended)), "tenant-suspended");
    for gone in [TenantState::Deleting, TenantState::Deleted] {
        assert_eq!(refused(created(|f, _, _| f.tenant = gone)), "tenant-gone");
        let cancelled = created(|f, _, _| (f.tenant, f.state) = (gone, EnrollmentState::Cancelled));
        assert_eq!(refused(cancelled), "tenant-gone", "whatever else there is to say");
    }
    assert_eq!(refused(created(|f, _, _| f.principal = None)), "principal-missing");
    assert_eq!(refused(created(|f, _, _| f.account = AccountId::parse("999999999999").ok())), "other-account");
    assert_eq!(refused(created(|f, _, _| f.account_connected = true)), "account-connected");
    assert_eq!(refused(created(|f, _, _| f.stack_connected = true)), "stack-connected");
}

#[test]
fn attack_15_any_account_partition_or_region_that_differs() {
    assert_eq!(refused(created(|_, c, _| c.account = AccountId::parse("999999999999").unwrap())), "account-mismatch");
    assert_eq!(refused(created(|_, c, _| c.role_arn = role("arn:aws:iam::999999999999:role/r"))), "account-mismatch");
    assert_eq!(
        refused(created(|_, c, _| c.role_arn = role("arn:aws-cn:iam::222222222222:role/r"))),
        "partition-mismatch"
    );
    assert_eq!(
        refused(created(|f, _, _| f.principal = Some(role("arn:aws-cn:iam::111111111111:role/t")))),
        "partition-mismatch"
    );
    assert_eq!(refused(created(|_, c, _| c.region = Region::parse("eu-west-1").unwrap())), "region-mismatch");
    let elsewhere = created(|_, c, callback| {
        callback.key.stack_id = stack(&STACK.replace("eu-central-1", "eu-west-1"));
        c.region = Region::parse("eu-west-1").unwrap();
    });
    assert_eq!(refused(elsewhere), "region-not-ours");
    let other_partition = created(|_, c, callback| {
        callback.key.stack_id = stack(&STACK.replace("arn:aws:", "arn:aws-cn:").replace("eu-central-1", "cn-north-1"));
        c.region = Region::parse("cn-north-1").unwrap();
    });
    assert_eq!(refused(other_partition), "partition-mismatch");
}

#[test]
fn refusals_of_one_offer_are_not_kept_without_end() {
    let many = created(|f, _, _| (f.refusals, f.state) = (MOST_REFUSALS, EnrollmentState::Expired));
    assert_eq!(many, Decision::Stranger(Refusal::TooManyAttempts));
    assert_eq!(
        created(|f, _, _| f.refusals = MOST_REFUSALS),
        Decision::Verify,
        "a good request is good however many were bad"
    );
}

#[test]
fn attack_17_an_update_may_change_the_role_but_not_the_external_id() {
    let updated = |facts: ConnectionFacts, claims: Claims| {
        update(&callback(RequestType::Update), &claims, Some(&facts), &regions())
    };
    assert_eq!(updated(connection(), claims()), Decision::Verify);
    let other = Claims { external_id: ExternalId::generate(), ..claims() };
    assert_eq!(refused(updated(connection(), other)), "external-id-changed");
    let beside = Claims { previous_external_id: Some(ExternalId::generate()), ..claims() };
    assert_eq!(refused(updated(connection(), beside)), "previous-id-unknown");
    let foreign = Claims { role_arn: role("arn:aws:iam::999999999999:role/r"), ..claims() };
    assert_eq!(refused(updated(connection(), foreign)), "account-mismatch");
    let gone = ConnectionFacts { tenant: TenantState::Deleting, ..connection() };
    assert_eq!(refused(updated(gone, claims())), "tenant-gone");
    for ended in ENDED {
        assert_eq!(refused(updated(ConnectionFacts { state: ended, ..connection() }, claims())), "no-such-connection");
    }
    for unproven in [ConnectionState::Registered, ConnectionState::Verifying] {
        assert_eq!(refused(updated(ConnectionFacts { state: unproven, ..connection() }, claims())), "still-verifying");
    }
    for state in OWNING {
        assert_eq!(updated(ConnectionFacts { state, ..connection() }, claims()), Decision::Verify);
    }
}

#[test]
fn attack_08_a_strangers_update_or_delete_does_nothing() {
    let other = stack("arn:aws:cloudformation:eu-central-1:999999999999:stack/rolebridge/0b9f");
    let strangers = [
        (ConnectionFacts { stack: other, ..connection() }, "other-stack"),
        (ConnectionFacts { token_matches: false, ..connection() }, "wrong-token"),
    ];
    for (facts, why) in strangers {
        assert!(matches!(
            update(&callback(RequestType::Update), &claims(), Some(&facts), &regions()),
            Decision::Stranger(_)
        ));
        assert_eq!(delete(&callback(RequestType::Delete), Some(&facts)), DeleteDecision::Nothing(why));
    }
    assert!(matches!(update(&callback(RequestType::Update), &claims(), None, &regions()), Decision::Stranger(_)));
    assert_eq!(delete(&callback(RequestType::Delete), None), DeleteDecision::Nothing("unknown-connection"));
    assert_eq!(delete(&callback(RequestType::Delete), Some(&connection())), DeleteDecision::Confirm);
}

#[test]
fn physical_ids_come_back() {
    let id = ConnectionId::new();
    assert_eq!(named_connection(Some(&physical_id(id))), Some(id));
    for other in [None, Some(NO_CONNECTION), Some(""), Some("2024/01/01/[$LATEST]aa"), Some("rolebridge-x")] {
        assert_eq!(named_connection(other), None);
    }
}

fn a_state() -> impl Strategy<Value = EnrollmentState> {
    use EnrollmentState::{Cancelled, Expired, Open, Used};
    prop::sample::select(vec![Open, Used, Cancelled, Expired])
}

fn a_tenants_state() -> impl Strategy<Value = TenantState> {
    use TenantState::{Active, Deleted, Deleting, Suspended};
    prop::sample::select(vec![Active, Suspended, Deleting, Deleted])
}

proptest! {
    #[test]
    fn only_all_rules_together_lead_to_a_probe(
        token_matches: bool, state in a_state(), tenant in a_tenants_state(), principal: bool, stack_connected: bool, account_connected: bool,
        same_account: bool, role_here: bool, refusals in 0u64..200,
    ) {
        let facts = OfferFacts {
            token_matches, tenant, stack_connected, account_connected, state, refusals,
            principal: offer().principal.filter(|_| principal),
            ..offer()
        };
        let mut claims = claims();
        if !same_account { claims.account = AccountId::parse("999999999999").unwrap(); }
        if !role_here { claims.role_arn = role("arn:aws:iam::999999999999:role/r"); }
        let decision = create(&callback(RequestType::Create), &claims, Some(&facts), &regions());
        let good = token_matches && state == EnrollmentState::Open && tenant == TenantState::Active && principal && !stack_connected && !account_connected
            && same_account && role_here;
        prop_assert_eq!(decision == Decision::Verify, good);
        prop_assert_eq!(matches!(decision, Decision::Refuse(_)), token_matches && !good && refusals < MOST_REFUSALS);
    }
}
