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
    owner::{OwnerId, Owners},
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
    roster.any(key, |other| covers(owners, other))
}

/// Whether entries of the topic may be detached.
pub(crate) fn may_be_detached(owners: &Owners, roster: &Roster) -> bool {
    roster.has_detached() || owners.departed().any(|owner| roster.has_owner(owner))
}

/// How many entries with this key another one covers; `but` says which entry to leave out, as if it
/// were not there.
pub(crate) fn covered(
    owners: &Owners,
    roster: &Roster,
    key: u64,
    but: Option<(OwnerId, u32)>,
) -> u32 {
    let (mut is_covered, mut detached) = (false, 0);
    for member in roster.find(key).iter().filter(|m| Some((m.owner, m.slot)) != but) {
        is_covered |= covers(owners, member);
        detached += u32::from(may_be_covered(owners, member));
    }
    if is_covered { detached } else { 0 }
}

/// How many are listed. O(owners) while no owner is hidden; else, and at the first time after one was
/// shown or hidden where entries are detached, O(members).
pub(crate) fn count(owners: &Owners, roster: &Roster) -> Count {
    // A key of which any entry is present is listed: what covers an entry is one of the same key.
    let (entries, keys) = roster.count(|owner| owners.is_present(owner));
    if !may_be_detached(owners, roster) {
        return Count { entries, keys };
    }
    let covered = roster.covered(owners.epoch()).unwrap_or_else(|| {
        let is_it = |member: &&Member| {
            may_be_covered(owners, member) && is_covered(owners, roster, member.key)
        };
        let covered = roster.members().iter().filter(is_it).count();
        let covered = u32::try_from(covered).unwrap_or(u32::MAX);
        roster.set_covered(owners.epoch(), covered);
        covered
    });
    Count { entries: entries.saturating_sub(covered as usize), keys }
}

fn covers(owners: &Owners, member: &Member) -> bool {
    !is_detached(owners, member) && owners.is_shown(member.owner)
}

fn may_be_covered(owners: &Owners, member: &Member) -> bool {
    is_detached(owners, member) && owners.is_present(member.owner)
}
