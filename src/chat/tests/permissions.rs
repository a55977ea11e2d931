//! An installation's own rules.

use super::*;

#[derive(Default)]
struct Members {
    rights: RefCell<Vec<(&'static str, Act)>>,
    is_down: Cell<bool>,
}

impl Permissions for Members {
    fn check<'a>(
        &'a self,
        user: &'a User,
        _room: &'a str,
        act: Act,
    ) -> LocalBoxFuture<'a, Result<(), Denied>> {
        Box::pin(async move {
            futures_lite::future::yield_now().await;
            if self.is_down.get() {
                return Err(Denied::Unknown);
            }
            let rights = self.rights.borrow();
            let has_it = rights.iter().any(|(id, of)| **id == *user.id && *of == act);
            has_it.then_some(()).ok_or(Denied::Forbidden)
        })
    }
}

#[test]
fn each_act_asks_the_installations_own_rules() {
    let members = Rc::new(Members::default());
    let world = World::with("", members.clone());
    let (ada, bob) = (world.client("ada"), world.client("bob"));
    members.rights.borrow_mut().push(("ada", Act::Join));
    assert_eq!(world.join(ada).expect("an ack")["ok"], true);
    assert_eq!(code(world.join(bob)), "forbidden");
    assert_eq!(
        code(world.say(ada, "1")),
        "forbidden",
        "to join is not to send"
    );
    members.rights.borrow_mut().push(("ada", Act::Send));
    assert_eq!(world.say(ada, "1").expect("an ack")["ok"], true);
    members.is_down.set(true);
    assert_eq!(code(world.say(ada, "2")), "unavailable");
    assert_eq!(code(world.join(bob)), "unavailable");
    members.is_down.set(false);
    members.rights.borrow_mut().clear();
    assert_eq!(
        code(world.say(ada, "2")),
        "forbidden",
        "a right is asked for when it is used"
    );
    assert_eq!(
        world.say(bob, "3").map(|ack| ack["ok"] == true),
        Some(false)
    );
}
