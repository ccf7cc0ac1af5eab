//! The rule of what is listed.
//!
//! An entry is *attached* while its client has a socket, then *detached*, for its lease. All entries
//! of an owner that has said goodbye are detached.
//!
//! - An attached entry is listed while its owner is shown.
//! - A detached entry is listed while its owner is shown or has said goodbye, unless it is *covered*:
//!   an attached entry of the same topic and key is listed.
//!
//! It is a function of what the logs hold and of which owners are shown, so nodes that know the same
//! list the same, in whatever order it came. A key is listed as long as an entry of it is there that
//! its owner's phase does not hide: it is either attached, or detached and listed, or covered by one
//! that is listed.

use crate::{
    Count,
    index::{Member, Roster},
    owner::Owners,
};

/// Whether an entry of the topic is listed.
pub(crate) fn is_listed(owners: &Owners, roster: &Roster, member: &Member) -> bool {
    if !is_detached(owners, member) {
        return owners.is_shown(member.owner);
    }
    owners.is_present(member.owner) && !is_covered(owners, roster, member.key)
}

/// Whether the entry's client is gone.
pub(crate) fn is_detached(owners: &Owners, member: &Member) -> bool {
    member.detached || owners.has_departed(member.owner)
}

/// Whether an attached entry with this key is listed.
pub(crate) fn is_covered(owners: &Owners, roster: &Roster, key: u64) -> bool {
    let mut same = roster.find(key).into_iter();
    same.any(|other| !is_detached(owners, &other) && owners.is_shown(other.owner))
}

/// Whether entries of the topic may be detached.
pub(crate) fn may_be_detached(owners: &Owners, roster: &Roster) -> bool {
    roster.has_detached() || owners.any_departed()
}

/// How many are listed. O(owners) while none is detached and no owner is hidden, else O(members).
pub(crate) fn count(owners: &Owners, roster: &Roster) -> Count {
    if !may_be_detached(owners, roster) {
        let (entries, keys) = roster.count(|owner| owners.is_shown(owner));
        return Count { entries, keys };
    }
    let listed = roster.members().iter().filter(|member| is_listed(owners, roster, member));
    let mut keys: Vec<u64> = listed.map(|member| member.key).collect();
    let entries = keys.len();
    keys.sort_unstable();
    keys.dedup();
    Count { entries, keys: keys.len() }
}
