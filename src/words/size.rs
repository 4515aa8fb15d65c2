//! The size of a terminal.

use serde::{Deserialize, Serialize};

/// In character cells, within [`Size::LEAST`] and [`Size::MOST`]: a stranger may ask for 0 or for 65,535 of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(from = "Asked")]
pub struct Size {
    cols: u16,
    rows: u16,
}

/// As somebody says it.
#[derive(Deserialize)]
struct Asked {
    cols: u32,
    rows: u32,
}

impl Size {
    /// The least, in each direction: less is nothing that a program can draw on.
    pub const LEAST: u16 = 2;
    /// The most, in each direction: a screen has to be kept in memory.
    pub const MOST: u16 = 500;

    /// The nearest size there is to what is asked for.
    pub fn near(cols: u32, rows: u32) -> Self {
        let within = |n: u32| u16::try_from(n).unwrap_or(Self::MOST).clamp(Self::LEAST, Self::MOST);
        Self { cols: within(cols), rows: within(rows) }
    }

    /// Its columns.
    pub fn cols(self) -> u16 {
        self.cols
    }

    /// Its rows.
    pub fn rows(self) -> u16 {
        self.rows
    }
}

impl Default for Size {
    /// That of a VT100.
    fn default() -> Self {
        Self { cols: 80, rows: 24 }
    }
}

impl From<Asked> for Size {
    fn from(asked: Asked) -> Self {
        Self::near(asked.cols, asked.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_asked_for_a_screen_comes_of_it() {
        assert_eq!(Size::near(0, 65_536), Size { cols: 2, rows: 500 });
        let parsed: Size = serde_json::from_str(r#"{"cols":4294967295,"rows":0}"#).unwrap();
        assert_eq!(parsed, Size { cols: 500, rows: 2 });
        assert!(serde_json::from_str::<Size>(r#"{"cols":-1,"rows":1}"#).is_err());
    }
}
