//! Frames of HTTP/2 (RFC 9113) and HPACK (RFC 7541) written by hand, and floods of them: what no client library would
//! send. The tests under load send the same to a proxy of its own.

/// What begins a connection: the preface, and settings that change nothing.
pub(crate) fn opening() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &[])].concat()
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The stream of a client's nth request.
fn stream(n: u32) -> u32 {
    2 * n + 1
}

/// `GET https://node/` as a field block.
pub(crate) fn get() -> Vec<u8> {
    [&[0x82, 0x87, 0x84, 0x41, 4][..], b"node"].concat()
}

/// A whole GET on the nth stream.
pub(crate) fn get_on(n: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream(n), &get())
}

/// The head of a POST on the nth stream, whose body is to follow.
pub(crate) fn post_on(n: u32) -> Vec<u8> {
    let block = [&[0x83, 0x87, 0x84, 0x41, 4][..], b"node"].concat();
    frame(HEADERS, END_HEADERS, stream(n), &block)
}

/// `SETTINGS_INITIAL_WINDOW_SIZE`: how much may come on each stream.
pub(crate) fn window(bytes: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&[0, 4][..], &bytes.to_be_bytes()].concat())
}

/// What one end of a connection sends to bring the other down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flood {
    /// Requests that are taken back at once (CVE-2023-44487).
    RapidReset,
    /// Requests that are made to fail, so that the server resets them itself (CVE-2025-8671).
    MadeToReset,
    /// A field block that never ends (CVE-2024-27316).
    Continuations,
    /// The same, of frames without anything in them.
    EmptyContinuations,
    /// A body in frames without anything in them (CVE-2019-9518).
    EmptyData,
    /// One big field, which each later byte names once more (CVE-2016-6581).
    HpackBomb,
    /// Settings, each of which wants an answer (CVE-2019-9515).
    Settings,
    /// Pings, likewise (CVE-2019-9512).
    Pings,
    /// Frames of a kind that nobody knows, which are to be ignored.
    Unknown,
}

impl Flood {
    /// Those that break a rule, or cost more than an honest client ever would: they end with GOAWAY.
    pub(crate) const HOSTILE: [Self; 6] = [
        Self::RapidReset,
        Self::MadeToReset,
        Self::Continuations,
        Self::EmptyContinuations,
        Self::EmptyData,
        Self::HpackBomb,
    ];

    /// Those that break none: they cost no more than their sender's own work, and hold a connection no longer than
    /// silence would.
    pub(crate) const IDLE: [Self; 3] = [Self::Settings, Self::Pings, Self::Unknown];

    /// What is sent once, after [`opening`].
    pub(crate) fn begin(self) -> Vec<u8> {
        match self {
            Self::Continuations | Self::EmptyContinuations => frame(HEADERS, END_STREAM, 1, &get()),
            Self::EmptyData => post_on(0),
            Self::HpackBomb => {
                // A field of 4,000 bytes, added to the table, in which it is the newest from then on.
                let mut block = [&get()[..], &[0x40, 1, b'x', 0x7f, 0xa1, 0x1e]].concat();
                block.extend(vec![b'y'; 4000]);
                block.extend(vec![0xbe; 8000]);
                frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)
            }
            _ => Vec::new(),
        }
    }

    /// What is then sent for the nth time, from 0.
    pub(crate) fn nth(self, n: u32) -> Vec<u8> {
        match self {
            Self::RapidReset => [get_on(n), frame(RST_STREAM, 0, stream(n), &8_u32.to_be_bytes())].concat(),
            // A window that is opened by nothing is an error of its stream.
            Self::MadeToReset => {
                [post_on(n), frame(WINDOW_UPDATE, 0, stream(n), &0_u32.to_be_bytes())].concat()
            }
            Self::Continuations => {
                let field = [&[0x00, 5][..], format!("x{:04}", n % 10_000).as_bytes(), &[0]].concat();
                frame(CONTINUATION, 0, 1, &field)
            }
            Self::EmptyContinuations => frame(CONTINUATION, 0, 1, &[]),
            Self::EmptyData => frame(DATA, 0, 1, &[]),
            Self::HpackBomb => {
                // 63 MB of fields in 16 KB.
                let block = [get(), vec![0xbe; 16_000]].concat();
                frame(HEADERS, END_STREAM | END_HEADERS, stream(n + 1), &block)
            }
            Self::Settings => window(65_535 + n % 2),
            Self::Pings => frame(PING, 0, 0, &u64::from(n).to_be_bytes()),
            Self::Unknown => frame(0xfa, 0, 0, &[0; 64]),
        }
    }
}
