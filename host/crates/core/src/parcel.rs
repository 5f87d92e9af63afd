//! How emitted messages lie in an outbox: those of one commit for one target, in order, some of them as one
//! entry, because an entry costs Redis more than what is in it. Knows bounds and stamps; must not know how
//! an entry is written, nor where it goes.

use crate::limits;
use crate::message::EntryId;
use crate::port::Stamped;

/// Slices of what a commit emits, each of which is one entry. Its id is the stamp of the last message; the
/// stamps before it follow one another without a gap, so that the id and the number tell them all.
pub fn parcels(emits: &[Stamped]) -> impl Iterator<Item = &[Stamped]> {
    let mut rest = emits;
    std::iter::from_fn(move || {
        let (parcel, more) = rest.split_at(first(rest));
        rest = more;
        (!parcel.is_empty()).then_some(parcel)
    })
}

/// How many of them make one parcel.
fn first(emits: &[Stamped]) -> usize {
    let Some(head) = emits.first() else {
        return 0;
    };
    let (mut bytes, mut fields) = (0, 0);
    let mut next = head.stamp;
    let fits = emits.iter().take_while(|one| {
        bytes += one.emit.content.bytes();
        fields += 2 + one.emit.content.attributes().len();
        let follows = one.stamp == next && one.emit.to == head.emit.to;
        next.seq = next.seq.wrapping_add(1);
        follows && bytes <= limits::PARCEL_BYTES && fields <= limits::PARCEL_FIELDS_MAX
    });
    // One that is larger goes alone.
    fits.take(limits::PARCEL_MESSAGES_MAX).count().max(1)
}

/// The stamps of the messages of an entry, from its id and their number. `None`: there cannot be so many.
pub fn stamps(last: EntryId, messages: usize) -> Option<impl Iterator<Item = EntryId>> {
    let before = u64::try_from(messages).ok()?.checked_sub(1)?;
    let first = last.seq.checked_sub(before)?;
    Some((first..=last.seq).map(move |seq| EntryId { ms: last.ms, seq }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::effects::Emit;
    use crate::message::Content;

    prop_compose! {
        fn emit()(to in 0..2, payload in prop_oneof![9 => 0..200usize, 1 => 0..3 * limits::PARCEL_BYTES], attributes in prop_oneof![9 => 0..3usize, 1 => 0..64usize], gap in prop::bool::weighted(0.05)) -> (bool, Emit) {
            let attributes = (0..attributes).map(|n| (format!("a{n}"), String::new()));
            let content = Content::new("k", vec![b'x'; payload], attributes.collect(), usize::MAX);
            let to = ["invoices", "payments"][to as usize].parse().expect("a name");
            (gap, Emit { to, content: content.expect("it is within its limits") })
        }
    }

    proptest! {
        #[test]
        fn parcels_hold_everything_in_order_within_their_bounds(emits in prop::collection::vec(emit(), 0..200)) {
            let mut seq = 0;
            let emits: Vec<_> = emits.into_iter().map(|(gap, emit)| {
                seq += 1 + u64::from(gap);
                Stamped { stamp: EntryId { ms: 7, seq }, emit }
            }).collect();
            let all: Vec<_> = parcels(&emits).collect();
            prop_assert_eq!(&all.concat(), &emits);
            for parcel in &all {
                let last = parcel.last().expect("none is empty");
                let told: Vec<_> = stamps(last.stamp, parcel.len()).expect("they are there").collect();
                let real: Vec<_> = parcel.iter().map(|one| one.stamp).collect();
                prop_assert_eq!(told, real);
                prop_assert!(parcel.iter().all(|one| one.emit.to == last.emit.to));
                prop_assert!(parcel.len() <= limits::PARCEL_MESSAGES_MAX);
                let bytes: usize = parcel.iter().map(|one| one.emit.content.bytes()).sum();
                let fields: usize = parcel.iter().map(|one| 2 + one.emit.content.attributes().len()).sum();
                prop_assert!(parcel.len() == 1 || bytes <= limits::PARCEL_BYTES && fields <= limits::PARCEL_FIELDS_MAX);
            }
        }
    }

    #[test]
    fn stamps_that_cannot_be_are_not_told() {
        let last = EntryId { ms: 7, seq: 2 };
        assert!(stamps(last, 0).is_none());
        assert!(stamps(last, 4).is_none());
        assert_eq!(stamps(last, 3).expect("0 to 2").count(), 3);
        assert_eq!(
            stamps(
                EntryId {
                    ms: 7,
                    seq: u64::MAX
                },
                1
            )
            .expect("one")
            .count(),
            1
        );
    }
}
