//! The book alone: what goes out in batches, and what became of it.

use std::time::Duration;

use mssm_domain::{LeaseState, Timestamp};

use super::book::{name, place, token};
use crate::book::{Batch, Book, Reply};

/// Two leases of one target that came back from their first batch so.
fn two_that_failed(reply: Reply) -> Book {
    let mut book = Book::default();
    let end = Timestamp::from_unix_ms(1000);
    for lease in [0, 2] {
        book.restore(&name(lease), place(lease), token(lease), end, LeaseState::Ending);
    }
    let batches = book.next_batches(Duration::ZERO);
    let [batch] = batches.as_slice() else { panic!("one batch of both") };
    book.returned(batch, reply, Duration::ZERO);
    for lease in [0, 2] {
        book.failed(&name(lease), reply, false, Duration::ZERO);
    }
    book
}

fn next(book: &mut Book, uptime: Duration) -> Vec<Vec<String>> {
    let names = |batch: Batch| batch.leases.iter().map(ToString::to_string).collect();
    book.next_batches(uptime).into_iter().map(names).collect()
}

#[test]
fn who_is_asked_for_does_not_wait_for_its_pause() {
    let mut book = two_that_failed(Reply::Answered);
    assert!(next(&mut book, Duration::ZERO).is_empty());
    book.hurry(&name(2));
    assert_eq!(next(&mut book, Duration::ZERO), [[name(2)]]);
    assert!(!book.access_ended(&name(0)));
}

#[test]
fn who_may_be_at_fault_goes_alone() {
    let mut book = two_that_failed(Reply::Refused);
    assert_eq!(next(&mut book, Duration::from_secs(2)), [[name(0)]]);
}

/// A book whose leases are all to be ended, and their batches on their way.
fn on_their_way(leases: impl Iterator<Item = u8>) -> (Book, Vec<Batch>) {
    let mut book = Book::default();
    let end = Timestamp::from_unix_ms(1000);
    for lease in leases {
        book.restore(&name(lease), place(lease), token(lease), end, LeaseState::Ending);
    }
    let batches = book.next_batches(Duration::ZERO);
    (book, batches)
}

#[test]
fn whether_access_has_ended_is_what_the_target_said() {
    for (reply, ended, known) in [
        (Reply::Answered, true, true),
        (Reply::Answered, false, false),
        (Reply::Refused, true, false),
        (Reply::Unanswered, true, false),
    ] {
        let (mut book, _) = on_their_way([0].into_iter());
        book.failed(&name(0), reply, ended, Duration::ZERO);
        assert_eq!(book.access_ended(&name(0)), known, "{reply:?} {ended}");
    }
}

#[test]
fn overdue_is_what_failed_and_what_waits_for_a_target_that_is_down() {
    let even = (0..120).map(|number| number * 2);
    let (mut book, batches) = on_their_way(even);
    let [first, second] = batches.as_slice() else { panic!("two batches") };
    assert_eq!(book.overdue_count(), 0);
    book.failed(&first.leases[0], Reply::Answered, false, Duration::ZERO);
    assert_eq!(book.overdue_count(), 1, "with its first failure");
    for lease in &first.leases[1..] {
        book.failed(lease, Reply::Unanswered, false, Duration::ZERO);
    }
    // Of the 20 that had no turn yet one stands in its queue and waits for nobody.
    assert!(book.force(&name(238)));
    assert!(!book.force(&second.leases[0]));
    book.returned(first, Reply::Unanswered, Duration::ZERO);
    assert_eq!(book.overdue_count(), 50 + 19);
}

#[test]
fn a_slot_that_was_taken_again_goes_to_its_own_target_alone() {
    let (mut book, batches) = on_their_way([1].into_iter());
    let down = &batches[0];
    book.failed(&name(1), Reply::Unanswered, false, Duration::ZERO);
    book.returned(down, Reply::Unanswered, Duration::ZERO);
    let end = Timestamp::from_unix_ms(1000);
    book.restore(&name(0), place(0), token(0), end, LeaseState::Ending);
    book.remove(&name(0));
    book.restore(&name(3), place(3), token(3), end, LeaseState::Ending);
    assert!(next(&mut book, Duration::ZERO).is_empty(), "its target is down");
    assert_eq!(next(&mut book, Duration::from_secs(1)).concat().len(), 1, "a probe");
}

#[test]
fn a_slot_that_was_taken_again_goes_in_its_own_rank_alone() {
    let even = (0..101).map(|number| number * 2);
    let (mut book, batches) = on_their_way(even);
    let [first, _] = batches.as_slice() else { panic!("two batches") };
    let failed = &first.leases[0];
    book.failed(failed, Reply::Answered, false, Duration::ZERO);
    book.remove(failed);
    let end = Timestamp::from_unix_ms(1000);
    book.restore(&name(254), place(254), token(254), end, LeaseState::Ending);
    let later = Duration::from_secs(2);
    assert!(next(&mut book, later).is_empty(), "two batches of the untried are on their way");
    book.returned(first, Reply::Answered, later);
    assert_eq!(next(&mut book, later), [[name(200), name(254)]]);
}
