use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

use super::*;

fn identity(uid: &str, host: u64) -> Identity {
    let uid = uid.into();
    Identity { uid, host, tag: 7 }
}

fn own(tag: u16) -> SocketId {
    let mut bytes = [0; 15];
    bytes[..2].copy_from_slice(&tag.to_be_bytes());
    SocketId::parse(&URL_SAFE_NO_PAD.encode(bytes)).unwrap()
}

fn broadcast(rooms: Vec<RoomKey>, seq: Option<u64>, version: Option<u64>) -> Broadcast {
    Broadcast {
        target: Target {
            namespace: "/".into(),
            rooms,
            except: vec![RoomKey::Private(own(7))],
        },
        event: "e".into(),
        args: Args::one(&serde_json::json!({"a": [1, "two", null]})),
        packets: Vec::new(),
        flags: Flags::default(),
        order: seq.map(|seq| Order { seq }),
        presence: version.map(|version| Presence {
            user: "ada".into(),
            version,
        }),
        origin: Some(Origin {
            uid: "aaaaaa".into(),
            count: 9,
        }),
        published: Instant::now(),
    }
}

fn carry(from: &Identity, to: &Identity, sent: &Broadcast) -> Result<(Broadcast, bool), Ignored> {
    let message = Bytes::from(from.write_broadcast(Vec::new(), sent));
    to.read_broadcast(sent.published, &"/".into(), &message)
}

#[test]
fn users_of_other_hosts_are_others() {
    let (a, sibling, far) = (
        identity("aaaaaa", 1),
        identity("bbbbbb", 1),
        identity("cccccc", 2),
    );
    let news = broadcast(vec![RoomKey::Named("r".into())], None, Some(4));
    let (read, is_own) = carry(&a, &sibling, &news).unwrap();
    assert!(is_own);
    assert_eq!(read.presence, news.presence);
    let (read, is_own) = carry(&a, &far, &news).unwrap();
    assert!(!is_own);
    assert_ne!(read.presence, news.presence);
    assert!(matches!(carry(&a, &a, &news), Err(Ignored::Own)));
}

#[test]
fn only_a_whole_room_has_a_number() {
    let (a, b) = (identity("aaaaaa", 1), identity("bbbbbb", 2));
    let forged = broadcast(vec![RoomKey::Named("r".into())], Some(4), None);
    let read = carry(&a, &b, &forged);
    assert!(
        matches!(read, Err(Ignored::For("shape"))),
        "it has an exception"
    );
}

#[test]
fn a_name_is_one_room_and_a_socket_of_ours_is_none() {
    let named = |name: &str| RoomKey::Named(name.into());
    let id = own(7);
    let both = [named(id.as_str()), RoomKey::Private(id)];
    let target = |rooms: &[RoomKey]| Target {
        namespace: "/".into(),
        rooms: rooms.to_vec(),
        except: Vec::new(),
    };
    assert_eq!(one_room(&target(&both)), Some(id.as_str()));
    assert_eq!(one_room(&target(&[named("a"), named("b")])), None);
    assert_eq!(one_room(&target(&[])), None);
    let us = identity("aaaaaa", 1);
    assert_eq!(us.key(&id.as_str().into()), RoomKey::Private(id));
    let other = own(8);
    assert_eq!(us.key(&other.as_str().into()), named(other.as_str()));
    let rooms = us.public(&Names::from_iter([id.as_str(), "a"])).unwrap();
    assert_eq!(rooms, ["a".into()]);
    assert!(
        us.public(&Names::from_iter(vec!["a"; ROOMS_MAX + 1]))
            .is_err()
    );
}

#[test]
fn answers_find_who_asked_and_nobody_else() {
    let (a, b) = (identity("aaaaaa", 1), identity("bbbbbb", 2));
    let now = Instant::now();
    let request = Request {
        id: 42,
        from: Node::Shard(0),
        what: Ask::Fetch(Target {
            namespace: "/".into(),
            ..Target::default()
        }),
    };
    let (namespace, message) = a.write_request(&request).unwrap();
    let message = Bytes::from(message);
    assert!(matches!(
        a.read_request(now, &namespace, &message),
        Err(Ignored::Own)
    ));
    let read = b.read_request(now, &namespace, &message).unwrap();
    let Node::Far(far) = read.from else {
        panic!("a far node asked");
    };
    let socket = RemoteSocket {
        id: own(8),
        rooms: vec!["r".into()],
        handshake: "{}".into(),
    };
    let answer = Response {
        id: 0,
        what: Answer::Sockets(vec![socket]),
    };
    let answer = Bytes::from(Identity::write_response(&far, &answer).unwrap());
    let heard = a.read_response(&answer).unwrap();
    assert_eq!(heard.id, 42);
    assert!(matches!(heard.what, Answer::Sockets(sockets) if sockets.len() == 1));
    assert!(matches!(b.read_response(&answer), Err(Ignored::Own)));
}

#[test]
fn a_message_for_too_many_rooms_is_ignored() {
    let (us, them) = (identity("aaaaaa", 1), identity("bbbbbb", 2));
    let namespace = Text::from("/");
    let read = |opts: Opts| {
        let request = adapter::encode_request(&adapter::Request {
            uid: Some(them.uid.clone()),
            id: Some("1".into()),
            what: adapter::Ask::Fetch(opts),
        });
        let read = us.read_request(Instant::now(), &namespace, &request.into());
        read.map(|_| ())
    };
    let of = |count: usize| Names::from_iter(vec!["r"; count]);
    let all = Opts::default;
    let too_large = Err(Ignored::For("too_large"));
    assert_eq!(
        read(Opts {
            rooms: of(NAMES_MAX),
            except: of(NAMES_MAX),
            ..all()
        }),
        Ok(())
    );
    assert_eq!(
        read(Opts {
            rooms: of(NAMES_MAX + 1),
            ..all()
        }),
        too_large
    );
    assert_eq!(
        read(Opts {
            except: of(NAMES_MAX + 1),
            ..all()
        }),
        too_large
    );
}

proptest! {
    #[test]
    fn a_broadcast_arrives_as_it_was_sent(
        rooms in prop::collection::vec("[a-z]{1,9}", 0..4),
        version: Option<u64>,
        volatile: bool,
    ) {
        let (a, b) = (identity("aaaaaa", 1), identity("bbbbbb", 1));
        let rooms = rooms.iter().map(|room| RoomKey::Named(room.as_str().into())).collect();
        let mut sent = broadcast(rooms, None, version);
        sent.flags.volatile = volatile;
        let (read, _) = carry(&a, &b, &sent).unwrap();
        prop_assert_eq!(names(&read.target.rooms), names(&sent.target.rooms));
        prop_assert_eq!(read.target.except, sent.target.except);
        prop_assert_eq!((read.event, read.args), (sent.event, sent.args));
        prop_assert_eq!((read.flags, read.presence), (sent.flags, sent.presence));
        prop_assert_eq!(read.origin, sent.origin);
    }

    #[test]
    fn survives_anything(bytes: Vec<u8>) {
        let (us, bytes, now) = (identity("aaaaaa", 1), Bytes::from(bytes), Instant::now());
        let _ = us.read_broadcast(now, &"/".into(), &bytes);
        let _ = us.read_request(now, &"/".into(), &bytes);
        let _ = us.read_response(&bytes);
    }
}
