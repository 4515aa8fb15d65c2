//! A session whose job is over, and who may have it started again.

use super::*;

fn over() -> Phase {
    Phase::Interrupted { summary: "its job 4 was <cancelled>".to_owned() }
}

/// Answers those who want a restart; says how many have.
fn answer_each(mut wanted: mpsc::Receiver<Restart>, phase: watch::Sender<Phase>) -> watch::Receiver<usize> {
    let (count, counted) = watch::channel(0);
    tokio::spawn(async move {
        while let Some(restart) = wanted.recv().await {
            assert!(restart.follower.is_none());
            count.send_modify(|count| *count += 1);
            let first = *count.borrow() == 1;
            if first {
                phase.send_replace(Phase::Waiting { summary: "job 5 waits".to_owned() });
            }
            let _ = restart.answer.send(if first { Ok(()) } else { Err("sbatch <refuses>".to_owned()) });
        }
    });
    counted
}

#[tokio::test]
async fn its_owner_is_offered_another_job_where_she_is() {
    let mut running = running(over()).await;
    let counted = answer_each(running.restarts.take().unwrap(), running.phase.clone());
    let cookie = running.sign_in().await;
    let head = |line: &str| format!("{line} HTTP/1.1\nHost: node.example\nCookie: {cookie}\n");

    let page = running.ask(&format!("{}Accept: text/html\n", head("GET /lab/tree/a%20b"))).await;
    assert_eq!(status(&page), 200);
    assert!(page.contains("its job 4 was &lt;cancelled&gt;."), "{page}");
    assert!(page.contains("action=\"/-/restart?to=/lab/tree/a%20b\""), "{page}");
    let policy = field(&page, "content-security-policy").unwrap();
    assert!(policy.contains("form-action 'self'") && policy.contains("default-src 'none'"), "{policy}");
    assert_eq!(status(&running.ask(&head("GET /api")).await), 503, "a page for people alone");
    assert_eq!(status(&running.ask(&head("GET /-/restart")).await), 405, "looking changes nothing");
    let fetch = format!(
        "{}Origin: https://node.example\nSec-Fetch-Site: same-origin\nSec-Fetch-Mode: cors\nContent-Length: 0\n",
        head("POST /-/restart")
    );
    assert_eq!(status(&running.ask(&fetch).await), 405, "no script's");
    assert_eq!(*counted.borrow(), 0);

    let post = format!(
        "{}Origin: https://node.example\nContent-Length: 0\n",
        head("POST /-/restart?to=//evil.example/%2F")
    );
    let answer = running.ask(&post).await;
    assert_eq!((status(&answer), field(&answer, "location")), (303, Some("/evil.example/%2F")));
    // Who presses it twice, or in two windows, gets one job.
    assert_eq!(status(&running.ask(&post).await), 303);
    assert_eq!(*counted.borrow(), 1);

    running.phase.send_replace(over());
    let refused = running.ask(&post).await;
    assert_eq!(status(&refused), 409);
    assert!(refused.contains("sbatch &lt;refuses&gt;"), "{refused}");
}

#[tokio::test]
async fn nobody_else_has_it_started_again() {
    let mut running = running(over()).await;
    let counted = answer_each(running.restarts.take().unwrap(), running.phase.clone());
    let cookie = running.sign_in().await;
    let post = |cookie: &str, origin: &str| {
        format!("POST /-/restart HTTP/1.1\nHost: node.example\n{cookie}Origin: {origin}\nContent-Length: 0\n")
    };
    let own = "https://node.example";
    let with_cookie = format!("Cookie: {cookie}\n");
    assert_eq!(status(&running.ask(&post("", own)).await), 401, "a stranger");
    for origin in ["https://node.example:3021", "https://evil.example", "null"] {
        assert_eq!(status(&running.ask(&post(&with_cookie, origin)).await), 403, "{origin}");
    }
    let terms = Terms {
        access: Access::Type,
        lasts: Duration::from_secs(60),
        label: None,
        terminal: TerminalId::from(1),
    };
    let (_, code) = running.guests.grant(terms).unwrap();
    let answer =
        running.ask(&format!("GET /-/terminal?token={} HTTP/1.1\nHost: node.example\n", code.reveal())).await;
    let guest = field(&answer, "set-cookie").unwrap().split(';').next().unwrap();
    let answer = running.ask(&post(&format!("Cookie: {guest}\n"), own)).await;
    assert_eq!(status(&answer), 403, "a guest: {answer}");
    assert_eq!(*counted.borrow(), 0);
}

#[test]
fn a_place_to_go_back_to_is_on_this_host_and_fits_where_it_stands() {
    for (query, place) in [
        (None, "/"),
        (Some("x=1"), "/"),
        (Some("to=/lab/%C3%A4"), "/lab/%C3%A4"),
        (Some("to=https://evil.example/"), "/https://evil.example/"),
        (Some("to=/\\evil.example"), "/evil.example"),
        (Some("to=/a&to=/b"), "/a"),
    ] {
        assert_eq!(admission::back_to(query), place);
    }
    for (path, value) in [("/a=b;c,(1)'", "/a=b;c,(1)'"), ("/a&to=/b", "/"), ("/\"><p>", "/"), ("/ü", "/")] {
        assert_eq!(query::value(path), value);
    }
}
