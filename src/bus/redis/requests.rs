//! What nodes ask each other, over Redis and, while that is away, through the mesh.

use std::sync::Arc;

use futures_util::future::{LocalBoxFuture, ready};

use super::Redis;
use super::convert::Identity;
use super::link::Parcel;
use crate::hub::Bus;
use crate::hub::envelope::{Ask, Node, Request, Response};

/// So many nodes never answer: what the number stands for is that it is not known.
const UNKNOWN: usize = u32::MAX as usize;

impl Redis {
    /// Sends a request to the fleet; the future says how many nodes were asked.
    pub(super) fn ask(&self, request: &Arc<Request>) -> LocalBoxFuture<'static, usize> {
        let Some((namespace, message)) = self.identity.write_request(request) else {
            return self.mesh.request(Arc::clone(request));
        };
        let Some(channels) = self.channels_of(&namespace) else {
            return self.mesh.request(Arc::clone(request));
        };
        let now = self.env.now();
        let wants_answers = matches!(
            request.what,
            Ask::Fetch(_) | Ask::Broadcast(..) | Ask::ServerSideEmit { ack: true, .. }
        );
        let counted = self.with(|state| {
            let link = &mut state.link;
            let mut counted = None;
            if wants_answers {
                state.count_number += 1;
                // First the number, then the question: whoever comes between the two answers in vain.
                if link.count(now, &channels.request, state.count_number) {
                    let (asked, count) = flume::bounded(1);
                    state.counts.insert(state.count_number, asked);
                    counted = Some(count);
                }
            }
            let parcel = (!wants_answers).then_some(Parcel::Command);
            link.publish(now, &[&channels.request], &message, parcel)
                .then_some(counted)
        });
        let Some(counted) = counted else {
            // The shards of this host alone are asked: those of others go without.
            self.metrics.drops.increment("redis");
            return self.mesh.request(Arc::clone(request));
        };
        self.metrics.redis_published.increment(1);
        self.wake();
        // Who has no link is not counted by Redis.
        let cut_off = self.mesh.ask(self.fleet.cut_off(), request);
        let Some(counted) = counted else {
            return Box::pin(ready(cut_off));
        };
        Box::pin(async move {
            // We are one of the subscribers ourselves.
            let on_redis = counted.recv_async().await;
            on_redis.map_or(UNKNOWN, |count| count.saturating_sub(1)) + cut_off
        })
    }

    /// Answers a request.
    pub(super) fn answer(&self, to: &Node, response: Response) {
        let far = match to {
            Node::Shard(_) => return self.mesh.respond(to, response),
            Node::Far(far) => far,
        };
        let Some(message) = Identity::write_response(far, &response) else {
            return;
        };
        let Some(channels) = self.channels_of(&far.namespace) else {
            return;
        };
        let now = self.env.now();
        let is_sent = self.with(|state| state.link.respond(now, &[&channels.response], &message));
        if is_sent {
            self.metrics.redis_published.increment(1);
            self.wake();
        } else {
            self.metrics.drops.increment("redis");
        }
    }
}
