//! The production mesh, and the defects that are planted in front of it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::LocalBoxFuture;
use project_yum::bus::mesh::Mesh;
use project_yum::hub::broadcast::Broadcast;
use project_yum::hub::envelope::{Node, Request, Response};
use project_yum::hub::{Bus, Task};

use crate::Planted;
use crate::dice::Dice;

pub(crate) struct PlantedBus {
    pub(crate) mesh: Rc<Mesh>,
    pub(crate) dice: Rc<Dice>,
    pub(crate) planted: Option<Planted>,
}

impl Bus for PlantedBus {
    fn publish(&self, broadcast: Arc<Broadcast>) {
        let is_lost = match self.planted {
            Some(Planted::LostBroadcast) => broadcast.order.is_some() && self.dice.chance(100),
            Some(Planted::LostUserLeft) => &*broadcast.event == "userLeft",
            _ => false,
        };
        if !is_lost {
            self.mesh.publish(broadcast);
        }
    }

    fn subscribe(&self, namespace: &str, room: &str) -> Task {
        self.mesh.subscribe(namespace, room)
    }

    fn unsubscribe(&self, namespace: &str, room: &str) {
        if self.planted != Some(Planted::ForgottenUnsubscribe) {
            self.mesh.unsubscribe(namespace, room);
        }
    }

    fn request(&self, request: Arc<Request>) -> LocalBoxFuture<'static, usize> {
        self.mesh.request(request)
    }

    fn respond(&self, to: &Node, response: Response) {
        self.mesh.respond(to, response);
    }

    fn tick(&self, now: Instant) {
        self.mesh.tick(now);
    }

    fn next_deadline(&self) -> Option<Instant> {
        Bus::next_deadline(&*self.mesh)
    }
}
