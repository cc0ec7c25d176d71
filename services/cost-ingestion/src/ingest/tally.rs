//! What rows add up to by service, and who pays them: for the ledger and for the news of a restatement. It is counted while rows pass, so that nothing
//! has to be read twice.

use crate::money::Amount;
use crate::source::{Made, Mapped, Nullable as _};
use crate::table::{Sums, TableError};
use ahash::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Services that are told apart: names come from customers' files. The rest is one line for each currency.
const MAX_SERVICES: usize = 2000;
/// Stands for the services that are not told apart.
pub(crate) const OTHER: &str = "(other)";
/// Payers that are told apart.
const MAX_PAYERS: usize = 100;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// (currency, service) -> sums.
    pub services: BTreeMap<(String, String), Sums>,
    /// FOCUS `BillingAccountId`s.
    pub payers: BTreeSet<String>,
}

impl Tally {
    /// Of a batch.
    pub(super) fn of(mapped: &Mapped) -> Result<Self, TableError> {
        let text = |name| match mapped.column(name) {
            Some(Made::Text(text)) => Ok(text),
            _ => Err(TableError::BadRow(name)),
        };
        let amounts = |name| match mapped.column(name) {
            Some(Made::Amounts(amounts)) => Ok(amounts),
            _ => Err(TableError::BadRow(name)),
        };
        let (service, currency, payer) = (text("ServiceName")?, text("BillingCurrency")?, text("BillingAccountId")?);
        let (billed, effective) = (amounts("BilledCost")?, amounts("EffectiveCost")?);
        let mut sums: HashMap<(u32, u32), (i128, i128), RandomState> = HashMap::default();
        let (mut payers, mut last_payer) = (BTreeSet::new(), u32::NONE);
        for row in 0..mapped.rows {
            let key = |keys: Option<u32>| keys.unwrap_or(u32::NONE);
            let units = |amount: Option<i128>| amount.filter(|units| *units != i128::NONE).unwrap_or_default();
            let of = sums.entry((key(currency.keys.at(row)), key(service.keys.at(row)))).or_default();
            of.0 = of.0.checked_add(units(billed.at(row))).ok_or(TableError::TooLarge)?;
            of.1 = of.1.checked_add(units(effective.at(row))).ok_or(TableError::TooLarge)?;
            let payer = key(payer.keys.at(row));
            if payer != last_payer {
                payers.insert(payer);
                last_payer = payer;
            }
        }
        let mut tally = Self::default();
        tally.payers.extend(payers.into_iter().filter_map(|key| payer.value(key)).take(MAX_PAYERS).map(str::to_owned));
        for ((of_currency, of_service), (billed, effective)) in sums {
            let name = |value: Option<&str>| value.unwrap_or_default().to_owned();
            let key = (name(currency.value(of_currency)), name(service.value(of_service)));
            let amount = |units| Amount::from_units(units).map_err(|_| TableError::TooLarge);
            tally.services.entry(key).or_default().add(amount(billed)?, amount(effective)?)?;
        }
        Ok(tally)
    }

    pub(super) fn merge(&mut self, other: Self) -> Result<(), TableError> {
        for ((currency, service), sums) in other.services {
            let key = (currency, service);
            let full = self.services.len() >= MAX_SERVICES && !self.services.contains_key(&key);
            let key = if full { (key.0, OTHER.to_owned()) } else { key };
            self.services.entry(key).or_default().add(sums.billed, sums.effective)?;
        }
        let room = MAX_PAYERS.saturating_sub(self.payers.len());
        self.payers.extend(other.payers.into_iter().take(room));
        Ok(())
    }
}
