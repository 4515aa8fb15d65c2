//! The gateway's own pages: written by hand, everything in them escaped, with no script or style but those whose hashes
//! the policy names. To somebody who is not signed in they name no node, no path and nothing of the app.

use std::{fmt::Write, sync::LazyLock};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, Response, StatusCode, header};
use nginx_free::{Body, Failure};
use sha2::{Digest, Sha256};

use crate::words::SessionName;

mod assets;

pub(crate) use assets::{asset, terminal_page};

const STYLE: &str = include_str!("page.css");
const STARTING: &str = include_str!("starting.js");

/// The `Content-Security-Policy` of every page.
static POLICY: LazyLock<String> = LazyLock::new(|| policy("'none'"));

/// That of a page with a form, which is sent to us.
static FORM_POLICY: LazyLock<String> = LazyLock::new(|| policy("'self'"));

fn policy(form_action: &str) -> String {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action {form_action}; frame-ancestors 'none'",
        hash(STYLE),
        hash(STARTING)
    )
}

/// Shown until the app answers. It follows the log and moves on by itself.
pub(crate) fn starting(name: &SessionName) -> Response<Body> {
    let name = escape(name.as_str());
    let body = format!(
        "<h1>{name} is starting</h1><p>This page goes on to the app as soon as it answers.</p>\
         <div class=\"bar\"></div><pre id=\"log\" tabindex=\"0\" aria-label=\"Log\"></pre>\
         <noscript><meta http-equiv=\"refresh\" content=\"3\"></noscript><script>{STARTING}</script>"
    );
    page(StatusCode::OK, &format!("{name} is starting"), &body)
}

/// Shown while no node runs the app. It asks again by itself, and goes on to the starting page.
pub(crate) fn waiting(name: &SessionName, summary: &str) -> Response<Body> {
    let (name, summary) = (escape(name.as_str()), escape(summary));
    let body = format!(
        "<h1>{name} has no node yet</h1><p>{summary}.</p><p>This page goes on as soon as there is one.</p>\
         <div class=\"bar\"></div><meta http-equiv=\"refresh\" content=\"5\">"
    );
    page(StatusCode::OK, &format!("{name} has no node yet"), &body)
}

/// Shown when Slurm has ended the job, and another may be submitted. `path` is where its reader is.
pub(crate) fn interrupted(name: &SessionName, summary: &str, path: &str) -> Response<Body> {
    let (name, summary, path) = (escape(name.as_str()), escape(summary), escape(path));
    let body = format!(
        "<h1>{name} has no job any more</h1><p>{summary}.</p>\
         <form method=\"post\" action=\"/-/restart?to={path}\"><button>Start again</button></form>\
         <p>This asks Slurm for another job, as the session was started first. What the app had in its memory and its \
         <code>/tmp</code> is gone; its files are where they were. What it wrote: <code>shlogin logs {name}</code></p>\
         <meta http-equiv=\"refresh\" content=\"15\">"
    );
    let mut answer = page(StatusCode::OK, &format!("{name} has no job any more"), &body);
    if let Ok(policy) = HeaderValue::from_str(&FORM_POLICY) {
        answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    answer
}

/// For somebody without a cookie.
pub(crate) fn sign_in() -> Response<Body> {
    page(
        StatusCode::UNAUTHORIZED,
        "Sign in",
        "<h1>This session needs a sign-in link</h1>\
         <p>Its owner gets a fresh one in a terminal on the machine where the session was started:</p>\
         <p><code>shlogin url NAME</code></p><p>Each link works once, and only for a short time.</p>",
    )
}

/// For a guest who asks for anything but his terminal.
pub(crate) fn only_the_terminal() -> Response<Body> {
    page(
        StatusCode::FORBIDDEN,
        "Only the terminal",
        "<h1>You are a guest here</h1>\
         <p>You were let in to <a href=\"/-/terminal\">a terminal</a>, and to nothing else of this session.</p>",
    )
}

/// For a token that is not good, or not good any more.
pub(crate) fn token_refused() -> Response<Body> {
    page(
        StatusCode::FORBIDDEN,
        "Link not valid",
        "<h1>This link is not valid any more</h1>\
         <p>A sign-in link works once, and only for a short time. Get a fresh one:</p>\
         <p><code>shlogin url NAME</code></p>",
    )
}

/// For a token that something other than a person's click presents: it stays good for the click.
pub(crate) fn not_now() -> Response<Body> {
    notice(StatusCode::SERVICE_UNAVAILABLE, "Not fetched ahead", "Open the link to sign in.")
}

/// When the app is gone.
pub(crate) fn ended(name: &SessionName, summary: &str) -> Response<Body> {
    let (name, summary) = (escape(name.as_str()), escape(summary));
    let body = format!(
        "<h1>{name} has ended</h1><p>{summary}</p><p>What it wrote: <code>shlogin logs {name}</code></p>"
    );
    page(StatusCode::GONE, &format!("{name} has ended"), &body)
}

/// When the app runs but does not answer.
pub(crate) fn no_answer(name: &SessionName, failure: Failure) -> Response<Body> {
    let name = escape(name.as_str());
    let what = match failure {
        Failure::Unreachable => "The app does not accept connections at the moment.",
        Failure::BadAnswer => "The app broke off, or gave an answer that cannot be used.",
        Failure::TimedOut => "The app took too long to answer.",
        Failure::Overloaded => "The app has too many connections open. Try again in a moment.",
        Failure::BrokenRequest => "The request did not arrive completely.",
    };
    let body = format!(
        "<h1>{name} does not answer</h1><p>{what}</p>\
         <p><a href=\"\">Try again</a>, or look into its log: <code>shlogin logs {name}</code></p>"
    );
    page(failure.status(), &format!("{name} does not answer"), &body)
}

/// A page of one heading and one sentence, both ours.
pub(crate) fn notice(status: StatusCode, heading: &str, sentence: &str) -> Response<Body> {
    let (heading, sentence) = (escape(heading), escape(sentence));
    page(status, &heading, &format!("<h1>{heading}</h1><p>{sentence}</p>"))
}

/// An answer for a program rather than a person.
pub(crate) fn plain(status: StatusCode, text: &str) -> Response<Body> {
    with_fields(status, "text/plain; charset=utf-8", Body::full(format!("{text}\n")))
}

fn page(status: StatusCode, title: &str, body: &str) -> Response<Body> {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><link rel=\"icon\" href=\"data:,\">\
         <style>{STYLE}</style><main>{body}</main></html>\n"
    );
    with_fields(status, "text/html; charset=utf-8", Body::full(html))
}

/// An answer with what all of ours carry.
pub(crate) fn with_fields(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let fields = answer.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    fields.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    fields.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    if let Ok(policy) = HeaderValue::from_str(&POLICY) {
        fields.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        fields.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

/// Text as it may stand in an element or in a quoted attribute.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            control if control.is_control() && control != '\n' => {
                // Writing to a String does not fail.
                let _ = write!(out, "\\x{:02x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn text(answer: Response<Body>) -> String {
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn what_a_page_tells_is_escaped() {
        let name: SessionName = "notes".parse().unwrap();
        let page = text(ended(&name, "<script>alert('1')</script>\u{1b}[0m & \"x\"")).await;
        assert!(
            page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;\\x1b[0m &amp; &quot;x&quot;"),
            "{page}"
        );
        assert!(!page.contains("<script>"));
    }

    #[tokio::test]
    async fn every_page_has_the_policy_that_its_script_and_style_fit() {
        let answer = starting(&"notes".parse().unwrap());
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        assert!(!policy.contains("unsafe"));
        assert_eq!(answer.headers()[header::X_FRAME_OPTIONS], "DENY");
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
        let page = text(answer).await;
        for (open, close) in [("<style>", "</style>"), ("<script>", "</script>")] {
            let content = page.split(open).nth(1).unwrap().split(close).next().unwrap();
            let hash = STANDARD.encode(Sha256::digest(content.as_bytes()));
            assert!(policy.contains(&hash), "{open}");
        }
    }

    #[tokio::test]
    async fn a_stranger_is_told_nothing() {
        for answer in [sign_in(), token_refused()] {
            let page = text(answer).await;
            assert!(
                !page.contains("127.0.0.1") && !page.contains("/home") && page.contains("shlogin url NAME")
            );
        }
    }
}
