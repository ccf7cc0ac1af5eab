//! The orderly end of a link: everything that was queued is read by the peer before it closes.
//!
//! QUIC drops what its receiver has not read yet when a connection is closed, acknowledged or not.
//! So who leaves ends its lanes and says goodbye, on a stream of its own: which lanes it used, and
//! why it leaves. The peer closes the connection when it has read all of those to their ends, and
//! knows of each answer it gave whether it was taken.

use quinn::{ReadToEndError, RecvStream};

use crate::{close, config::Lane, error::DownReason, lane, link::Link};

/// The first byte of the stream, in place of a lane.
pub(crate) const GOODBYE: u8 = u8::MAX;
/// The longest message, in bytes.
const LEN_MAX: usize = 1024;

/// A set of lanes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lanes(u32);

impl Lanes {
    /// Adds a lane; false if it was there.
    pub(crate) fn insert(&mut self, lane: Lane) -> bool {
        // A lane is below `LANES_MAX`, the number of bits.
        let bit = 1u32.checked_shl(u32::from(lane.0)).unwrap_or(0);
        let new = self.0 & bit == 0;
        self.0 |= bit;
        new
    }

    fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What the side that leaves says.
#[derive(Debug)]
pub(crate) struct Goodbye {
    lanes: Lanes,
    reason: String,
}

impl Goodbye {
    /// Why the link ends, once all the lanes of the peer that it names have been read.
    pub(crate) fn fulfilled(&self, read: Lanes) -> Option<DownReason> {
        read.contains(self.lanes).then(|| DownReason::ClosedByPeer(self.reason.clone()))
    }
}

/// Says goodbye; the peer closes the connection when it has read the rest.
pub(crate) async fn say(link: &Link, lanes: Lanes, reason: &str) -> Result<(), DownReason> {
    let mut stream = link.connection().open_uni().await.map_err(|e| close::down_reason(&e))?;
    let mut message = vec![GOODBYE];
    message.extend_from_slice(&lanes.0.to_le_bytes());
    message.extend(reason.bytes().take(LEN_MAX - 4));
    stream.write_all(&message).await.map_err(lane::write_failure)?;
    // Fails only on a stream that has ended already.
    let _ = stream.finish();
    Ok(())
}

/// Hears the peer's goodbye, whose first byte has been read.
pub(crate) async fn hear(stream: &mut RecvStream) -> Result<Goodbye, DownReason> {
    let message = stream.read_to_end(LEN_MAX).await.map_err(|error| match error {
        ReadToEndError::Read(error) => lane::read_failure(error),
        ReadToEndError::TooLong => DownReason::Protocol("a goodbye is too long"),
    })?;
    let Some((lanes, reason)) = message.split_first_chunk() else {
        return Err(DownReason::Protocol("a goodbye is too short"));
    };
    Ok(Goodbye { lanes: Lanes(u32::from_le_bytes(*lanes)), reason: close::reason_text(reason) })
}
