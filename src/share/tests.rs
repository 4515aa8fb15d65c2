//! Rules of visits: whose code it is, and when it is over.

use std::sync::{Arc, Mutex};

use super::*;

fn peer(address: &str) -> Peer {
    Peer::tcp(address.parse().unwrap())
}

fn terms(access: Access, minutes: u64) -> Terms {
    let lasts = Duration::from_secs(minutes * 60);
    Terms { access, lasts, label: None, terminal: TerminalId::from(1) }
}

type Told = Arc<Mutex<Vec<String>>>;

fn guests() -> (Guests, Told) {
    let told = Told::default();
    let tell = Arc::clone(&told);
    (Guests::new(true, move |_, text| tell.lock().unwrap().push(text.to_owned())), told)
}

/// Lets everybody else do what there is to do.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_code_is_one_person_s_and_no_guest_is_an_owner() {
    let (guests, _) = guests();
    let (id, code) = guests.grant(terms(Access::Owner, 30)).unwrap();
    let bob = guests.claim(code.reveal(), &peer("10.0.0.1:1")).unwrap();
    assert_eq!((bob.access(), bob.id()), (Access::Type, id));
    assert!(guests.claim(code.reveal(), &peer("10.0.0.1:2")).is_some(), "he comes back");
    assert!(guests.claim(code.reveal(), &peer("10.0.0.2:1")).is_none(), "somebody else has read it");
    let local = |uid| peer("10.0.0.1:1").identified(uid);
    assert!(guests.claim(code.reveal(), &local(7)).is_none());
    assert!(guests.claim("", &peer("10.0.0.1:1")).is_none());
    let (_, other) = guests.grant(terms(Access::View, 30)).unwrap();
    assert!(guests.claim(other.reveal(), &local(7)).is_some());
    assert!(guests.claim(other.reveal(), &local(8)).is_none(), "another user of the node");
}

#[tokio::test]
async fn who_is_revoked_hears_of_it_at_once_and_does_not_come_back() {
    let (guests, told) = guests();
    let (id, code) = guests.grant(terms(Access::View, 30)).unwrap();
    let bob = guests.claim(code.reveal(), &peer("10.0.0.1:1")).unwrap();
    let mut here = bob.enter().unwrap();
    assert_eq!(guests.list()[0].connections, 1);
    assert_eq!(guests.revoke("nobody"), 0);
    assert_eq!(guests.revoke(&id.to_string()), 1);
    assert_eq!(here.next().await, News::Over(Over::Revoked));
    assert!(bob.is_over() && guests.list().is_empty());
    assert!(guests.claim(code.reveal(), &peer("10.0.0.1:1")).is_none());
    settle().await;
    drop(here);
    let told = told.lock().unwrap().join("; ");
    assert_eq!(told, "g1 is here and watches; the visit of g1 is over: the owner has ended it; g1 has gone");
}

#[tokio::test]
async fn one_person_s_connections_are_bounded_and_the_owner_hears_of_the_person() {
    let (guests, told) = guests();
    let (_, code) = guests.grant(terms(Access::View, 30)).unwrap();
    let bob = guests.claim(code.reveal(), &peer("10.0.0.1:1")).unwrap();
    let again = guests.claim(code.reveal(), &peer("10.0.0.1:2")).unwrap();
    let mut here: Vec<_> = (0..CONNECTIONS).map(|_| bob.enter().unwrap()).collect();
    assert!(bob.enter().is_none() && again.enter().is_none());
    let mut by_ssh: Vec<_> = (0..CONNECTIONS).map(|_| bob.connect().unwrap()).collect();
    assert!(bob.connect().is_none() && again.connect().is_none());
    by_ssh.pop();
    assert!(again.connect().is_some());
    assert_eq!(guests.list()[0].connections, CONNECTIONS);
    here.pop();
    here.push(again.enter().unwrap());
    guests.revoke_all();
    settle().await;
    drop(here);
    let told = told.lock().unwrap().join("; ");
    assert_eq!(told, "g1 is here and watches; the visit of g1 is over: the owner has ended it; g1 has gone");
}

#[tokio::test]
async fn a_visit_that_is_granted_again_is_another_one() {
    let (guests, _) = guests();
    let (first, _) = guests.grant(terms(Access::View, 1)).unwrap();
    guests.revoke_all();
    let (second, _) = guests.grant(terms(Access::View, 1)).unwrap();
    assert_ne!(first, second);
    assert_eq!(guests.revoke(&first.to_string()), 0);
}

#[tokio::test]
async fn one_key_ends_the_visits_to_a_terminal_and_is_the_owner_s_own_otherwise() {
    let (guests, _) = guests();
    let terminal = TerminalId::from(1);
    let press = |at| {
        let mut typed = BytesMut::from(&b"a\x1eb"[..]);
        guests.heed_end_key(at, &mut typed);
        typed
    };
    assert_eq!(press(terminal), "a\x1eb");
    guests.grant(terms(Access::View, 1)).unwrap();
    assert_eq!(press(TerminalId::from(2)), "a\x1eb");
    assert_eq!(press(terminal), "ab");
    assert_eq!(press(terminal), "a\x1eb");
}

#[tokio::test]
async fn the_number_of_people_is_bounded() {
    let (guests, _) = guests();
    for _ in 0..MOST {
        guests.grant(terms(Access::View, 1)).unwrap();
    }
    assert!(matches!(guests.grant(terms(Access::View, 1)), Err(GrantError::TooMany)));
    assert_eq!(guests.revoke_at(TerminalId::from(2)), 0);
    assert_eq!(guests.revoke_at(TerminalId::from(1)), MOST);
}

/// The clock is tokio's: it is turned forward when everybody waits.
#[test]
fn people_are_warned_and_sent_away_and_can_be_let_stay() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let (guests, told) = guests();
        let (id, code) = guests.grant(terms(Access::Type, 30)).unwrap();
        let bob = guests.claim(code.reveal(), &peer("10.0.0.1:1")).unwrap();
        let mut here = bob.enter().unwrap();
        let began = Instant::now();
        let minutes = |n: u64| Duration::from_secs(n * 60);
        assert_eq!(here.next().await, News::EndsSoon { minutes: 5 });
        assert_eq!(began.elapsed().as_secs(), minutes(25).as_secs());
        settle().await;
        assert_eq!(guests.extend(&id.to_string(), minutes(30)), 1);
        assert_eq!(here.next().await, News::EndsSoon { minutes: 5 });
        assert_eq!(began.elapsed().as_secs(), minutes(50).as_secs());
        assert_eq!(here.next().await, News::Over(Over::Expired));
        assert_eq!(began.elapsed().as_secs(), minutes(55).as_secs());
        assert!(bob.is_over() && guests.claim(code.reveal(), &peer("10.0.0.1:1")).is_none());
        settle().await;
        assert!(guests.list().is_empty());
        let told = told.lock().unwrap().clone();
        assert_eq!(told.iter().filter(|text| text.contains("5 more minutes")).count(), 2, "{told:?}");
    });
}
