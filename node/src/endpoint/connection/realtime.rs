//! Topics of realtime-style clients, on one client's socket.

use std::time::Duration;

use bytes::Bytes;
use presence::Topic;
use serde_json::json;

use super::{Connection, Membership, Other, Stage, change_presence, refusal_of};
use crate::{
    app,
    channel::{
        Refusal,
        realtime::{self, Request, Terms},
    },
    pubsub::{Flush, Overflow, Payload, Subscription},
    socket::{ChannelId, Push},
};

/// One joined realtime topic.
pub(super) struct Joined {
    pub(super) subscription: Subscription,
    terms: Terms,
}

impl Connection {
    /// Takes a client in, and tells it who is there if it wants to know.
    pub(super) fn join_realtime(
        &mut self,
        id: ChannelId,
        topic: &Topic,
        payload: &[u8],
        flush: &mut Flush,
    ) -> Result<(), Refusal> {
        let terms = Terms::read(payload)?;
        let presence = if terms.presence {
            app::Watching::State { own: None }
        } else {
            app::Watching::Nothing
        };
        let reply = app::Payload::raw_json(Bytes::from_static(realtime::JOINED));
        let who = self.subscriber(id, Overflow::Disconnect);
        let (_, observation, subscription) =
            self.enter(id, topic, who, &reply, &presence, flush).map_err(refusal_of)?;
        if let Some(Some(member)) = self.socket.data_mut(id) {
            member.observation = observation;
            let seat = Joined { subscription, terms };
            member.stage = Stage::Other(Box::new(Other::Realtime(seat)));
        }
        Ok(())
    }

    /// Whether the push is to be acknowledged.
    pub(super) fn push_realtime(
        &mut self,
        push: &Push<'_>,
        flush: &mut Flush,
    ) -> Result<bool, Refusal> {
        let asked = Request::read(&push.event, push.payload);
        let Some(Some(Membership { tracked, stage: Stage::Other(other), .. })) =
            self.socket.data_mut(push.id)
        else {
            return Ok(false);
        };
        let Other::Realtime(Joined { subscription, terms }) = &**other else {
            return Ok(false);
        };
        match asked {
            Ok(Request::Broadcast) => {
                let except = (!terms.own).then(|| subscription.id());
                let (topic, publisher) = (subscription.topic(), &self.shared.publisher);
                publisher.publish(topic, &push.event, push.payload, except, flush);
                Ok(terms.ack)
            }
            Ok(Request::Presence(request)) => {
                flush.settle();
                let own = (subscription.topic(), &*terms.key);
                change_presence(tracked, &self.shared, own, request, Duration::ZERO)?;
                Ok(true)
            }
            Ok(Request::Token) => Ok(false),
            Err(refusal) => {
                if refusal == Refusal::InvalidBroadcast && !terms.ack {
                    self.tell(push.id, refusal, flush);
                }
                Err(refusal)
            }
        }
    }

    /// Says why a broadcast was refused to a client that does not look at replies to broadcasts.
    fn tell(&self, id: ChannelId, refusal: Refusal, flush: &mut Flush) {
        let Some(letterhead) = self.socket.letterhead(id) else {
            return;
        };
        let system = json!({
            "status": "error",
            "extension": "broadcast",
            "message": refusal.reason(),
            "channel": realtime::name_of(letterhead.topic()),
        });
        let system = system.to_string();
        if let Some(frame) = letterhead.message("system", Payload::Json(system.as_bytes())) {
            self.send(frame, flush);
        }
    }
}
