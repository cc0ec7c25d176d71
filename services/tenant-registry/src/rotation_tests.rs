//! Every state of a rotation against every ID that a request can name.

use proptest::prelude::*;

use super::*;

fn id(name: &str) -> ExternalId {
    ExternalId::parse(&format!("id-{name}")).unwrap()
}

fn ids(own: &str, previous: Option<&str>, rotation: Option<RotationState>, current: &str, next: Option<&str>) -> Ids {
    let offered = OfferedIds { current: id(current), next: next.map(id) };
    Ids { own: id(own), previous: previous.map(id), rotation, offered }
}

fn never() -> Ids {
    ids("old", None, None, "old", None)
}
fn offered() -> Ids {
    ids("old", None, Some(RotationState::Offered), "old", Some("new"))
}
fn overlapping() -> Ids {
    ids("new", Some("old"), Some(RotationState::Overlapping), "old", Some("new"))
}
/// This connection, while others of its enrollment are not yet.
fn finished_first() -> Ids {
    ids("new", Some("old"), Some(RotationState::Finished), "old", Some("new"))
}
fn finished() -> Ids {
    ids("new", Some("old"), Some(RotationState::Finished), "new", None)
}
fn offered_again() -> Ids {
    ids("new", Some("old"), Some(RotationState::Offered), "new", Some("newer"))
}

fn asked(ids: &Ids, external_id: &str, previous: Option<&str>) -> Result<(Option<ExternalId>, Turn), &'static str> {
    let (external_id, previous) = (id(external_id), previous.map(id));
    update(ids, Named { external_id: &external_id, previous: previous.as_ref() })
        .map(|proven| (proven.retired.clone(), turn(ids, &proven)))
        .map_err(|refusal| refusal.word())
}

#[test]
fn the_two_updates_of_a_rotation() {
    assert_eq!(asked(&offered(), "new", Some("old")), Ok((None, Turn::Begin)));
    assert_eq!(asked(&overlapping(), "new", Some("old")), Ok((None, Turn::Stay)), "the first one again");
    assert_eq!(asked(&overlapping(), "new", None), Ok((Some(id("old")), Turn::Finish)));
    assert_eq!(asked(&finished(), "new", None), Ok((Some(id("old")), Turn::Stay)), "and stays refused");
    assert_eq!(asked(&offered_again(), "newer", Some("new")), Ok((None, Turn::Begin)));
}

#[test]
fn one_update_may_do_both_when_the_old_one_is_refused() {
    assert_eq!(asked(&offered(), "new", None), Ok((Some(id("old")), Turn::Replace)));
}

#[test]
fn what_cloudformation_rolls_back_to_is_proven_again() {
    assert_eq!(asked(&offered(), "old", None), Ok((None, Turn::Stay)), "the first update failed");
    assert_eq!(asked(&overlapping(), "old", None), Ok((None, Turn::Back)), "it failed after us");
    assert_eq!(asked(&overlapping(), "new", Some("old")), Ok((None, Turn::Stay)), "the second failed");
    assert_eq!(asked(&finished(), "new", Some("old")), Ok((None, Turn::Reopen)), "it failed after us");
}

#[test]
fn the_one_before_is_named_beside_only_by_the_change_that_replaced_it() {
    assert_eq!(asked(&offered_again(), "new", Some("old")), Err("previous-id-unknown"), "it would be found open");
    assert_eq!(asked(&offered_again(), "new", None), Ok((Some(id("old")), Turn::Stay)));
    let taken_back = Ids { rotation: None, ..finished() };
    assert_eq!(asked(&taken_back, "new", Some("old")), Err("previous-id-unknown"));
    // Asked for while it might be, proven when it might not.
    let both = ToProve { external_id: id("new"), retired: None };
    assert_eq!(turn(&offered_again(), &both), Turn::Gone);
    assert_eq!(turn(&taken_back, &both), Turn::Gone);
}

#[test]
fn attack_17_any_other_external_id_is_refused() {
    for ids in [never(), offered(), overlapping(), finished_first(), finished(), offered_again()] {
        assert_eq!(asked(&ids, "other", None), Err("external-id-changed"), "{ids:?}");
        assert_eq!(asked(&ids, "other", Some("old")), Err("external-id-changed"), "{ids:?}");
        let own = ids.own.as_str().trim_start_matches("id-").to_owned();
        assert_eq!(asked(&ids, &own, Some("other")), Err("previous-id-unknown"), "{ids:?}");
        assert_eq!(asked(&ids, &own, Some(&own)), Err("previous-id-unknown"), "{ids:?}");
    }
    assert_eq!(asked(&never(), "new", None), Err("external-id-changed"), "before it is offered");
    assert_eq!(asked(&offered(), "new", Some("new")), Err("previous-id-unknown"));
    assert_eq!(asked(&overlapping(), "old", Some("new")), Err("previous-id-unknown"));
    assert_eq!(asked(&finished_first(), "old", None), Err("external-id-changed"), "what was seen refused is over");
    assert_eq!(asked(&finished(), "old", None), Err("external-id-changed"));
    assert_eq!(asked(&offered_again(), "old", None), Err("external-id-changed"));
}

#[test]
fn an_id_that_was_taken_back_while_it_was_probed_counts_no_more() {
    let proven = ToProve { external_id: id("new"), retired: None };
    assert_eq!(turn(&never(), &proven), Turn::Gone);
    assert_eq!(turn(&finished(), &ToProve { external_id: id("old"), retired: None }), Turn::Gone);
}

#[test]
fn a_new_stack_may_come_with_either() {
    let (old, new, other) = (id("old"), id("new"), id("other"));
    let offered = OfferedIds { current: old.clone(), next: Some(new.clone()) };
    let with = |external_id, previous| begin(&offered, Named { external_id, previous }).map_err(|r| r.word());
    let state = |beginning: Result<Beginning, _>| beginning.map(|b| (b.previous, b.rotation));
    assert_eq!(state(with(&old, None)), Ok((None, Some(RotationState::Offered))));
    assert_eq!(state(with(&new, Some(&old))), Ok((Some(old.clone()), Some(RotationState::Overlapping))));
    assert_eq!(state(with(&new, None)), Ok((None, None)));
    assert_eq!(with(&other, None), Err("no-such-offer"));
    assert_eq!(with(&old, Some(&other)), Err("previous-id-unknown"));
    assert_eq!(with(&old, Some(&new)), Err("previous-id-unknown"));
    assert_eq!(with(&new, Some(&other)), Err("previous-id-unknown"));
    let at_rest = OfferedIds { current: old.clone(), next: None };
    assert_eq!(begin(&at_rest, Named { external_id: &new, previous: None }), Err(Refusal::NoSuchOffer));
}

/// A connection through any requests and any verdicts, by the rules alone.
fn after(mut ids: Ids, turn: Turn) -> Ids {
    match turn {
        Turn::Stay | Turn::Gone => {}
        Turn::Begin | Turn::Replace => {
            ids.previous = Some(std::mem::replace(&mut ids.own, ids.offered.next.clone().unwrap()));
            ids.rotation = Some(if turn == Turn::Begin { RotationState::Overlapping } else { RotationState::Finished });
        }
        Turn::Finish => ids.rotation = Some(RotationState::Finished),
        Turn::Reopen => ids.rotation = Some(RotationState::Overlapping),
        Turn::Back => {
            ids.own = ids.previous.take().unwrap();
            ids.rotation = Some(RotationState::Offered);
        }
    }
    ids
}

proptest! {
    /// However requests follow each other, a connection goes by the current ID or by the new one, and never by one that nobody offered.
    #[test]
    fn it_never_goes_by_a_strangers_id(requests in prop::collection::vec((0usize..4, 0usize..5), 0..12)) {
        let names = ["old", "new", "older", "other"];
        let mut connection = offered();
        for (external_id, previous) in requests {
            let (external_id, previous) = (id(names[external_id]), names.get(previous).copied().map(id));
            let Ok(proven) = update(&connection, Named { external_id: &external_id, previous: previous.as_ref() }) else { continue };
            let turn = turn(&connection, &proven);
            prop_assert_ne!(turn, Turn::Gone, "what was just allowed counts");
            connection = after(connection, turn);
            prop_assert!([id("old"), id("new")].contains(&connection.own));
            prop_assert_ne!(Some(&connection.own), connection.previous.as_ref());
        }
    }
}
