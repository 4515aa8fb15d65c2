//! Rules of a terminal's state: who hears what, who may do what, whose size counts.

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Attach, Event, Keep,
    history::KEPT,
    state::{SeatId, State},
};
use crate::words::{Access, Size};

const CLIENT: &str = "page-0123456789abcdef";

fn state() -> State {
    State::new(Size::default(), Keep::UntilItEnds, "shell".to_owned())
}

fn attach(access: Access, have: Option<u64>, size: Option<(u32, u32)>) -> Attach {
    let client = (access != Access::View).then(|| CLIENT.parse().unwrap());
    Attach { access, client, who: "somebody".to_owned(), have, size: size.map(|(c, r)| Size::near(c, r)) }
}

fn join(state: &mut State, access: Access) -> SeatId {
    state.seat(attach(access, None, None), Instant::now()).0
}

fn says(state: &mut State, text: &str) {
    writes(state, Bytes::copy_from_slice(text.as_bytes()), Instant::now());
}

fn writes(state: &mut State, mut bytes: Bytes, now: Instant) {
    while !bytes.is_empty() {
        state.output(&mut bytes, now);
    }
}

/// All that a seat hears until there is nothing more.
fn hears(state: &mut State, seat: SeatId) -> Vec<Event> {
    std::iter::from_fn(|| state.next(seat, Instant::now())).collect()
}

fn text(events: &[Event]) -> String {
    let outputs = events.iter().map(|event| match event {
        Event::Output { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    });
    outputs.collect()
}

#[test]
fn who_comes_back_goes_on_where_he_was() {
    let mut state = state();
    let first = join(&mut state, Access::Owner);
    says(&mut state, "one ");
    assert_eq!(text(&hears(&mut state, first)), "one ");
    state.leave(first, Instant::now());
    says(&mut state, "two ");
    let (again, began) = state.seat(attach(Access::Owner, Some(2), None), Instant::now());
    assert_eq!((began.reset, began.from, began.replay), (false, 2, 2));
    assert_eq!(text(&hears(&mut state, again)), "e two ");
    let (other, began) = state.seat(attach(Access::Owner, None, None), Instant::now());
    assert_eq!((began.reset, began.from), (true, 0));
    assert_eq!(text(&hears(&mut state, other)), "one two ");
    let (liar, began) = state.seat(attach(Access::Owner, Some(1000), None), Instant::now());
    assert_eq!((began.reset, began.from), (true, 0), "he cannot have what was not written");
    assert_eq!(text(&hears(&mut state, liar)), "one two ");
}

/// Threat 37: what was shown before he came is not for a guest, whatever he says that he has seen.
#[test]
fn threat_37_a_guest_gets_the_screen_and_no_history() {
    let mut state = state();
    says(&mut state, "a secret\r\n\x1b[2J\x1b[Hon the screen");
    for access in [Access::View, Access::Type] {
        for have in [None, Some(0), Some(3), Some(u64::MAX)] {
            let (guest, began) = state.seat(attach(access, have, None), Instant::now());
            assert!(began.reset);
            let heard = hears(&mut state, guest);
            let [Event::Redraw(screen)] = &heard[..] else { panic!("{heard:?}") };
            assert!(screen.contains("on the screen") && !screen.contains("secret"), "{screen:?}");
            state.leave(guest, Instant::now());
        }
    }
}

#[test]
fn a_question_of_the_program_s_is_answered_by_one_page_once() {
    let mut state = state();
    says(&mut state, "\x1b[c");
    let (first, began) = state.seat(attach(Access::Owner, None, Some((80, 24))), Instant::now());
    assert_eq!((began.leads, began.replay), (true, 0), "nobody has seen it: this page is to answer");
    hears(&mut state, first);
    let (viewer, began) = state.seat(attach(Access::View, None, Some((80, 24))), Instant::now());
    assert_eq!((began.leads, began.replay), (false, 3));
    let (second, began) = state.seat(attach(Access::Owner, None, Some((100, 30))), Instant::now());
    assert_eq!((began.leads, began.replay), (true, 3), "it was answered before");
    let led = Event::Size { size: Size::near(100, 30), leads: false };
    assert_eq!(hears(&mut state, first), std::slice::from_ref(&led));
    assert!(hears(&mut state, viewer).contains(&led));
    assert!(!hears(&mut state, second).contains(&led));
}

#[test]
fn only_an_owner_s_window_decides_on_the_size() {
    let mut state = state();
    let owner = state.seat(attach(Access::Owner, None, Some((120, 40))), Instant::now()).0;
    for access in [Access::View, Access::Type] {
        let (guest, began) = state.seat(attach(access, None, Some((10, 10))), Instant::now());
        assert_eq!((began.size, began.leads), (Size::near(120, 40), false));
        state.resize(guest, Size::near(0, 0));
        state.take_lead(guest);
        state.typed(guest, None, Bytes::from("x"));
        assert_eq!(state.size(), Size::near(120, 40), "{access:?}");
    }
    let second = state.seat(attach(Access::Owner, None, Some((90, 20))), Instant::now()).0;
    assert_eq!(state.size(), Size::near(90, 20), "the window that was opened last");
    state.typed(owner, None, Bytes::from("x"));
    assert_eq!(state.size(), Size::near(120, 40), "the window that is typed into");
    state.leave(owner, Instant::now());
    assert_eq!(state.size(), Size::near(90, 20), "the window that is left");
    state.resize(second, Size::near(91, 21));
    assert_eq!(state.size(), Size::near(91, 21));
}

/// Threat 37 and 39: a viewer's bytes end here, in whatever form they come.
#[test]
fn threat_37_what_a_viewer_types_goes_nowhere() {
    let mut state = state();
    let viewer = join(&mut state, Access::View);
    for bytes in ["q", "\x03", "\x1b[200~rm\x1b[201~", "\x02:kill-server\r", "\x1bP$q\"p\x1b\\"] {
        for at in [None, Some(0), Some(u64::MAX)] {
            assert_eq!(state.typed(viewer, at, Bytes::from(bytes)).bytes, "", "{bytes:?} at {at:?}");
        }
    }
    let guest = join(&mut state, Access::Type);
    let typed = state.typed(guest, Some(0), Bytes::from("ls\r"));
    assert_eq!((typed.bytes, typed.guest), (Bytes::from("ls\r"), Some(guest)));
    state.leave(guest, Instant::now());
    assert!(!state.is_expelled(guest), "what he has typed is read when he has left");
    assert_eq!(state.typed(guest, Some(3), Bytes::from("ls\r")).bytes, "");
    let guest = join(&mut state, Access::Type);
    state.expel(guest, Instant::now());
    assert!(state.is_expelled(guest), "and is not when he was sent away");
    assert_eq!(state.typed(guest, Some(3), Bytes::from("ls\r")).bytes, "");
    says(&mut state, "secret");
    assert_eq!(hears(&mut state, guest), []);
}

#[test]
fn who_is_too_slow_skips_and_his_screen_is_put_right() {
    let mut state = state();
    let viewer = join(&mut state, Access::View);
    let line = format!("{}\n", "x".repeat(99));
    for _ in 0..KEPT / 100 + 1000 {
        says(&mut state, &line);
    }
    says(&mut state, "\x1b[?1049h\x1b[?2004h\x1b[2J\x1b[Hfull screen");
    let events = hears(&mut state, viewer);
    let Some(Event::Skip { from, .. }) = events.first() else { panic!("{:?}", events.first()) };
    assert!(*from > 0);
    let Some(Event::Redraw(redraw)) = events.last() else { panic!("no redraw at the end") };
    let mut screen = vt100::Parser::new(24.try_into().unwrap(), 80.try_into().unwrap(), 0);
    screen.process(redraw.as_bytes());
    let screen = screen.screen();
    assert_eq!(screen.contents().trim_end(), "full screen");
    assert!(screen.alternate_screen() && screen.bracketed_paste());
}

#[test]
fn a_program_is_held_back_for_its_owner_and_not_for_guests() {
    let mut state = state();
    let now = Instant::now();
    let viewer = join(&mut state, Access::View);
    let big = Bytes::from(vec![b'x'; 300 * 1024]);
    writes(&mut state, big.clone(), now);
    assert_eq!(state.held(now), None, "a viewer holds nothing up");
    let owner = join(&mut state, Access::Owner);
    assert!(state.held(now).is_some());
    while state.next(owner, now).is_some() {}
    state.shown(owner, 300 * 1024, now);
    assert_eq!(state.held(now), None);
    state.shown(owner, u64::MAX, now);
    writes(&mut state, big.clone(), now);
    assert!(state.held(now).is_some(), "more than was sent cannot have been shown");
    state.leave(owner, now);
    assert_eq!(state.held(now), None, "while she is away, there is room for more");
    for _ in 0..3 {
        writes(&mut state, big.clone(), now);
    }
    let until = state.held(now).unwrap();
    assert_eq!(state.held(until), None, "but not for ever");
    state.leave(viewer, now);
}

#[test]
fn ssh_s_terminal_goes_with_its_owner() {
    let mut state = State::new(Size::default(), Keep::WhileAttached, "shell".to_owned());
    let guest = join(&mut state, Access::Type);
    assert!(!state.is_abandoned(), "she is still to come");
    let owner = join(&mut state, Access::Owner);
    assert!(!state.is_abandoned());
    state.leave(owner, Instant::now());
    assert!(state.is_abandoned(), "whoever else is there");
    state.leave(guest, Instant::now());
}

#[test]
fn the_end_is_heard_after_all_output_and_once() {
    let mut state = state();
    let viewer = join(&mut state, Access::View);
    says(&mut state, "bye");
    state.end(None);
    let events = hears(&mut state, viewer);
    assert_eq!(events, [Event::Output { at: 0, bytes: Bytes::from("bye") }, Event::Ended(None)]);
}

#[test]
fn a_title_is_short_and_plain() {
    let mut state = state();
    assert_eq!(state.title(), "shell");
    says(&mut state, &format!("\x1b]2;a\u{9b}b{}\x07", "c".repeat(500)));
    let title = state.title();
    assert!(title.starts_with("abccc") && title.chars().count() <= 200, "{title:?}");
}

/// Threat 39: whatever comes, there is a screen afterwards.
#[test]
fn threat_39_sizes_and_garbage_do_no_harm() {
    let mut state = state();
    let owner = state.seat(attach(Access::Owner, None, Some((0, 0))), Instant::now()).0;
    let mut random = 1_u64;
    for round in 0..2000 {
        let bytes: Vec<u8> = (0..64)
            .map(|n| {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if n % 9 == 0 { 0x1b } else { random.to_be_bytes()[3] }
            })
            .collect();
        writes(&mut state, Bytes::from(bytes), Instant::now());
        let n = |shift: u32| u32::try_from(random >> shift & 0xffff).unwrap();
        state.resize(owner, Size::near(n(13) % (round + 1), n(29)));
        state.title();
    }
    state.leave(owner, Instant::now());
    let viewer = join(&mut state, Access::View);
    assert!(!hears(&mut state, viewer).is_empty());
}
