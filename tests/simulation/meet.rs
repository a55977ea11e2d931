//! Meetings in quiet times: members come to a room while somebody says one thing in it, and then nothing
//! happens.
//!
//! What a member misses between the room's newest number and its own subscription no later message or
//! outage reveals then.

use std::time::Duration;

use crate::client::{Asked, Pace};
use crate::failure::Failure;
use crate::world::World;

/// How often they meet.
const MEETINGS: usize = 3;
/// Steps in which they come, and the word is said, and the most time of one.
const STEPS: usize = 3;
const STEP_MS: usize = 10;
/// Steps within which everybody has left or come, or heard what was said, and the time of one.
const QUIET_STEPS: usize = 25;
const QUIET_STEP: Duration = Duration::from_millis(20);

impl World {
    /// Everybody leaves a room, some come back, and when one of them speaks the others come.
    pub(crate) fn meet(&mut self) -> Result<(), Failure> {
        let dice = self.ground.plan.dice("meeting", 0);
        for _ in 0..MEETINGS {
            let room = dice.pick(&self.rooms).clone();
            let mut guests = self.able();
            for number in guests.clone() {
                self.ask(number, Asked::Leave { room: room.clone() });
            }
            self.wait()?;
            let early = guests.extract_if(.., |_| dice.chance(300));
            let early: Vec<usize> = early.collect();
            for number in &early {
                self.come(*number, &room);
            }
            self.wait()?;
            let steps = guests.iter().map(|_| dice.below(STEPS));
            let steps: Vec<usize> = steps.collect();
            let speaks_at = dice.below(STEPS);
            for step in 0..STEPS {
                for (number, _) in guests.iter().zip(&steps).filter(|(_, at)| **at == step) {
                    self.come(*number, &room);
                }
                if let Some(speaker) = early.first().filter(|_| speaks_at == step) {
                    self.send_new(*speaker, room.clone(), &dice);
                }
                self.step(dice.ms(STEP_MS), true)?;
            }
            self.wait()?;
            self.check_all_is_told()?;
        }
        Ok(())
    }

    /// Until nobody has gone for as long as it takes to tell of it: tokens may run out meanwhile.
    fn wait(&mut self) -> Result<(), Failure> {
        loop {
            let before = self.able();
            for _ in 0..QUIET_STEPS {
                self.step(QUIET_STEP, true)?;
            }
            if self.able() == before {
                return Ok(());
            }
        }
    }

    /// Clients that are in the namespace and read what comes.
    pub(crate) fn able(&self) -> Vec<usize> {
        let is_able = |number: &usize| {
            let connection = self.clients[*number].connection.as_ref();
            connection.is_some_and(|connection| {
                connection.is_ready && connection.cut_at.is_none() && connection.pace != Pace::Dead
            })
        };
        (0..self.clients.len()).filter(is_able).collect()
    }

    fn come(&mut self, number: usize, room: &str) {
        let (room, last_seq) = (room.to_owned(), None);
        self.ask(number, Asked::Join { room, last_seq });
    }
}
