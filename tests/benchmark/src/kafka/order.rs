//! Orders, as a row of a table of ten fields has them: five texts and five numbers.

use std::fmt::Write as _;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// How many products are sold in each region.
const PRODUCTS: u64 = 5000;
const REGIONS: [&str; 20] = [
    "ams", "ber", "bru", "bud", "cph", "dub", "fra", "hel", "lis", "lon", "mad", "mil", "osl", "par", "prg", "rom",
    "sto", "vie", "war", "zrh",
];

/// An input record, and the row that a job keeps of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Which order: the key of its record, too.
    pub(crate) order: CompactString,
    pub(crate) customer: CompactString,
    pub(crate) region: CompactString,
    pub(crate) product: CompactString,
    pub(crate) note: CompactString,
    pub(crate) quantity: i64,
    pub(crate) price_cents: i64,
    pub(crate) discount_cents: i64,
    pub(crate) version: u64,
    pub(crate) at: i64,
}

/// What orders are grouped by: the key of an output record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) region: CompactString,
    pub(crate) product: CompactString,
}

/// What the orders of a group come to: the value of an output record.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Revenue {
    pub(crate) orders: u64,
    pub(crate) revenue_cents: i64,
}

impl Order {
    /// The order of this number as it is when it was changed for the `version`th time.
    pub(crate) fn of(number: u64, version: u64) -> Self {
        let text = |letter: char, number: u64| {
            let mut text = CompactString::default();
            // Writing into memory does not fail.
            let _ = write!(text, "{letter}{number:08}");
            text
        };
        Self {
            order: text('o', number),
            customer: text('c', number / 7),
            region: CompactString::const_new(REGIONS[(number / PRODUCTS % REGIONS.len() as u64) as usize]),
            product: text('p', number % PRODUCTS),
            note: CompactString::const_new("leave it with the neighbours if nobody is at home"),
            quantity: 1 + (version % 5) as i64,
            price_cents: 100 + (number % 900) as i64,
            discount_cents: (version % 3) as i64,
            version,
            at: 1_790_000_000_000 + version as i64,
        }
    }

    pub(crate) fn group(&self) -> Group {
        Group { region: self.region.clone(), product: self.product.clone() }
    }

    pub(crate) fn cents(&self) -> i64 {
        self.quantity * self.price_cents - self.discount_cents
    }

    /// The value of its record.
    pub(crate) fn value(&self, into: &mut Vec<u8>) -> serde_json::Result<()> {
        into.clear();
        serde_json::to_writer(into, self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_value_has_ten_fields_and_about_200_bytes() {
        let (order, mut value) = (Order::of(123_456, 2), Vec::new());
        order.value(&mut value).unwrap();
        assert!((180..260).contains(&value.len()), "{} bytes", value.len());
        assert_eq!(serde_json::from_slice::<Order>(&value).unwrap(), order);
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&value).unwrap().as_object().unwrap().len(), 10);
        let groups: std::collections::BTreeSet<_> = (0..200_000).map(|number| Order::of(number, 0).group()).collect();
        assert_eq!(groups.len() as u64, PRODUCTS * REGIONS.len() as u64);
    }
}
