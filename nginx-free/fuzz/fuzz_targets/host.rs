//! A host that is accepted is the same one to `http` and to `url`, which reads it as browsers do.
#![no_main]

use http::uri::Authority;
use libfuzzer_sys::fuzz_target;
use nginx_free::Host;
use url::Url;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(host) = Host::parse(text) else { return };
    assert_eq!(host.as_str(), text);
    let port = host.port().map(|port| format!(":{port}")).unwrap_or_default();
    assert_eq!(Host::parse(&format!("{}{port}", host.name())).unwrap().port(), host.port());
    assert!(host.same_as(&host, 443));

    let authority: Authority = text.parse().unwrap_or_else(|error| panic!("{text:?} to http: {error}"));
    assert_eq!((authority.host(), authority.port_u16()), (host.name(), host.port()), "{text:?}");

    let url = match Url::parse(&format!("https://{text}/x")) {
        Ok(url) => url,
        // Names that claim to be IDNA and are not: nobody can ask for them.
        Err(_) if text.to_ascii_lowercase().split('.').any(|label| label.starts_with("xn--")) => return,
        Err(error) => panic!("{text:?} to url: {error}"),
    };
    assert_eq!(url.port_or_known_default(), host.port().or(Some(443)), "{text:?}");
    assert_eq!((url.path(), url.username(), url.password()), ("/x", "", None), "{text:?}");
    match url.host() {
        Some(url::Host::Ipv4(ip)) => assert_eq!(host.ip(), Some(ip.into()), "{text:?}"),
        Some(url::Host::Ipv6(ip)) => assert_eq!(host.ip(), Some(ip.into()), "{text:?}"),
        Some(url::Host::Domain(name)) => {
            assert_eq!(host.ip(), None, "{text:?}");
            assert!(name.eq_ignore_ascii_case(host.name()), "{text:?} is {name:?} to url");
        }
        None => panic!("{text:?} is no host to url"),
    }
});
