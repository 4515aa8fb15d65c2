//! The part of a query that is the gateway's: `token=…`. The rest is the app's and stays byte for byte.

/// A query.
#[derive(Clone, Copy)]
pub(crate) struct Query<'q>(&'q str);

impl<'q> Query<'q> {
    pub(crate) fn of(text: &'q str) -> Self {
        Self(text)
    }

    /// The values of all parameters named `token`, as they were sent: ours need no escaping.
    pub(crate) fn tokens(self) -> impl Iterator<Item = &'q str> {
        self.0.split('&').filter_map(|pair| pair.strip_prefix("token="))
    }
}

/// `path` with all of `query` but the parameters `token=TOKEN`, as a place on this host.
pub(crate) fn without(path: &str, query: &Query<'_>, token: &str) -> String {
    let ours = |pair: &str| pair.strip_prefix("token=") == Some(token);
    let rest: Vec<&str> = query.0.split('&').filter(|pair| !ours(pair)).collect();
    match rest.join("&") {
        query if query.is_empty() => place(path),
        query => format!("{}?{query}", place(path)),
    }
}

/// `path` as a place on this host.
pub(crate) fn place(path: &str) -> String {
    // Two slashes, or one and a backslash, would begin another host's name.
    format!("/{}", path.trim_start_matches(['/', '\\']))
}

/// `path` as the value of a parameter that is read back as it is, without decoding; one that would end there is the root.
pub(crate) fn value(path: &str) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$'()*+,;=:@".contains(c);
    if path.chars().all(plain) { path } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_is_taken_out() {
        let clean = |path: &str, query: &str| without(path, &Query::of(query), "T");
        assert_eq!(clean("/", "token=T"), "/");
        assert_eq!(clean("/lab", "a=%20b&token=T&c"), "/lab?a=%20b&c");
        assert_eq!(clean("/lab", "token=T&token=jupyter"), "/lab?token=jupyter");
        assert_eq!(clean("/lab", "xtoken=T&token=TT"), "/lab?xtoken=T&token=TT");
        assert_eq!(Query::of("a&token=&token=x&Token=y").tokens().collect::<Vec<_>>(), ["", "x"]);
    }

    #[test]
    fn a_redirect_stays_on_this_host() {
        for path in ["//evil.example", "/\\evil.example", "///evil.example", "\\/evil.example"] {
            assert_eq!(without(path, &Query::of("token=T"), "T"), "/evil.example");
        }
    }
}
