//! The membership protocol's packets, as foca writes and reads them.

use foca::Codec as _;
use proptest::prelude::*;

use super::{super::SwimCodec, Identity, identity};

fn header() -> impl Strategy<Value = foca::Header<Identity>> {
    use foca::Message as M;
    let message =
        (0..11_u8, any::<u8>(), identity()).prop_map(|(tag, probe_number, id)| match tag {
            0 => M::Ping(probe_number),
            1 => M::Ack(probe_number),
            2 => M::PingReq { target: id, probe_number },
            3 => M::IndirectPing { origin: id, probe_number },
            4 => M::IndirectAck { target: id, probe_number },
            5 => M::ForwardedAck { origin: id, probe_number },
            6 => M::Announce,
            7 => M::Feed,
            8 => M::Gossip,
            9 => M::Broadcast,
            _ => M::TurnUndead,
        });
    (identity(), any::<u16>(), identity(), message).prop_map(
        |(src, src_incarnation, dst, message)| foca::Header { src, src_incarnation, dst, message },
    )
}

fn member() -> impl Strategy<Value = foca::Member<Identity>> {
    let state =
        prop_oneof![Just(foca::State::Alive), Just(foca::State::Suspect), Just(foca::State::Down),];
    (identity(), any::<u16>(), state)
        .prop_map(|(id, incarnation, state)| foca::Member::new(id, incarnation, state))
}

proptest! {
    #[test]
    fn headers_and_members_follow_each_other(
        header in header(),
        members in prop::collection::vec(member(), 0..4),
    ) {
        let mut packet = Vec::new();
        SwimCodec.encode_header(&header, &mut packet).expect("a Vec has room");
        for member in &members {
            SwimCodec.encode_member(member, &mut packet).expect("a Vec has room");
        }
        let mut rest = &packet[..];
        prop_assert_eq!(SwimCodec.decode_header(&mut rest).ok(), Some(header));
        for member in &members {
            prop_assert_eq!(SwimCodec.decode_member(&mut rest).ok(), Some(member.clone()));
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn arbitrary_packets_do_no_harm(packet in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = SwimCodec.decode_header(&packet[..]);
        let _ = SwimCodec.decode_member(&packet[..]);
    }

    #[test]
    fn a_mutated_packet_does_no_harm(
        header in header(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut packet = Vec::new();
        SwimCodec.encode_header(&header, &mut packet).expect("a Vec has room");
        let at = at.index(packet.len());
        packet[at] = byte;
        let _ = SwimCodec.decode_header(&packet[..]);
        let _ = SwimCodec.decode_member(&packet[at..]);
    }

    /// foca fills a packet with as many members as fit.
    #[test]
    fn a_member_that_does_not_fit_leaves_the_packet_as_it_is(member in member(), room in 0..9_usize) {
        let mut packet = vec![0; room];
        let mut buffer = &mut packet[..];
        prop_assert!(SwimCodec.encode_member(&member, &mut buffer).is_err());
        prop_assert_eq!(buffer.len(), room);
    }
}
