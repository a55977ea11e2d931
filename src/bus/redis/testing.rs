//! A Redis without a network: what its pub/sub answers, byte for byte.

use std::collections::BTreeSet;

use super::Redis;

#[derive(Default)]
pub(crate) struct Broker {
    clients: Vec<Client>,
    /// Nothing is taken or answered while it is set.
    pub(crate) is_paused: bool,
    /// Every PUBLISH: its channel and message.
    pub(crate) published: Vec<(String, Vec<u8>)>,
}

#[derive(Default)]
struct Client {
    channels: BTreeSet<Vec<u8>>,
    input: Vec<u8>,
    output: Vec<u8>,
    is_connected: bool,
}

impl Broker {
    /// Connects a node, as client of that number.
    pub(crate) fn connect(&mut self, number: usize, node: &Redis) {
        while self.clients.len() <= number {
            self.clients.push(Client::default());
        }
        self.clients[number] = Client {
            is_connected: true,
            ..Client::default()
        };
        node.connected();
    }

    /// The connection breaks; what is on its way is lost.
    pub(crate) fn cut(&mut self, number: usize, node: &Redis) {
        self.clients[number] = Client::default();
        node.lost("cut");
    }

    /// Carries bytes both ways. `true`: there were any.
    pub(crate) fn exchange(&mut self, nodes: &[std::rc::Rc<Redis>]) -> bool {
        if self.is_paused {
            return false;
        }
        let mut moved = false;
        for (number, node) in nodes.iter().enumerate() {
            if !self
                .clients
                .get(number)
                .is_some_and(|client| client.is_connected)
            {
                continue;
            }
            let output = node.take_output();
            moved |= !output.is_empty();
            self.clients[number].input.extend(output);
            while let Some(command) = self.next_command(number) {
                self.obey(number, &command);
            }
        }
        for (number, node) in nodes.iter().enumerate() {
            let Some(client) = self.clients.get_mut(number) else {
                continue;
            };
            let output = std::mem::take(&mut client.output);
            if !output.is_empty() {
                moved = true;
                node.received(&output);
            }
        }
        moved
    }

    /// Sends bytes to a client as they are.
    pub(crate) fn say(&mut self, number: usize, bytes: &[u8]) {
        self.clients[number].output.extend_from_slice(bytes);
    }

    /// What a foreign client publishes; returns how many got it.
    pub(crate) fn publish(&mut self, channel: &[u8], message: &[u8]) -> usize {
        let name = String::from_utf8_lossy(channel).into_owned();
        self.published.push((name, message.to_vec()));
        let mut count = 0;
        for client in &mut self.clients {
            if client.is_connected && client.channels.contains(channel) {
                count += 1;
                client.output.extend(b">3\r\n$7\r\nmessage\r\n");
                for part in [channel, message] {
                    client
                        .output
                        .extend(format!("${}\r\n", part.len()).as_bytes());
                    client.output.extend(part);
                    client.output.extend(b"\r\n");
                }
            }
        }
        count
    }

    fn subscribers(&self, channel: &[u8]) -> usize {
        let clients = self.clients.iter();
        clients
            .filter(|client| client.channels.contains(channel))
            .count()
    }

    fn next_command(&mut self, number: usize) -> Option<Vec<Vec<u8>>> {
        let input = &mut self.clients[number].input;
        let (count, mut at) = line(input, 0, b'*')?;
        let mut words = Vec::new();
        for _ in 0..count {
            let (length, from) = line(input, at, b'$')?;
            words.push(input.get(from..from + length)?.to_vec());
            at = from + length + 2;
        }
        (at <= input.len()).then(|| {
            input.drain(..at);
            words
        })
    }

    fn obey(&mut self, number: usize, command: &[Vec<u8>]) {
        let name = String::from_utf8_lossy(&command[0]).into_owned();
        match &*name {
            "HELLO" => self.say(
                number,
                b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n",
            ),
            "SELECT" => self.say(number, b"+OK\r\n"),
            "PING" => self.say(number, b"+PONG\r\n"),
            "PUBLISH" => {
                let count = self.publish(&command[1], &command[2]);
                self.say(number, format!(":{count}\r\n").as_bytes());
            }
            "PUBSUB" => {
                let (channel, count) = (&command[2], self.subscribers(&command[2]));
                let name = String::from_utf8_lossy(channel).into_owned();
                let answer = format!("*2\r\n${}\r\n{name}\r\n:{count}\r\n", channel.len());
                self.say(number, answer.as_bytes());
            }
            "SUBSCRIBE" | "UNSUBSCRIBE" => {
                let kind = name.to_lowercase();
                for channel in &command[1..] {
                    let channels = &mut self.clients[number].channels;
                    if kind == "subscribe" {
                        channels.insert(channel.clone());
                    } else {
                        channels.remove(channel);
                    }
                    let count = channels.len();
                    let name = String::from_utf8_lossy(channel).into_owned();
                    let push = format!(
                        ">3\r\n${}\r\n{kind}\r\n${}\r\n{name}\r\n:{count}\r\n",
                        kind.len(),
                        channel.len()
                    );
                    self.say(number, push.as_bytes());
                }
            }
            other => panic!("unknown command {other}"),
        }
    }
}

fn line(input: &[u8], at: usize, kind: u8) -> Option<(usize, usize)> {
    let rest = input.get(at..)?.strip_prefix(&[kind])?;
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    let number = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Some((number, at + 1 + end + 2))
}
