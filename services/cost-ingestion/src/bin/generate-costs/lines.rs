//! The lines of a bill, one after the other: what they are, before any format.

use super::Totals;
use time::{Date, Month};

/// (product code, name, unit, usage types, operation, price in 10^-10 USD).
type Service = (&'static str, &'static str, &'static str, &'static [&'static str], &'static str, i64);

const SERVICES: [Service; 10] = [
    (
        "AmazonEC2",
        "Amazon Elastic Compute Cloud",
        "Hrs",
        &["BoxUsage:m5.large", "BoxUsage:t3.micro", "SpotUsage:c5.xlarge", "EBS:VolumeUsage.gp3"],
        "RunInstances",
        960_000_000,
    ),
    (
        "AmazonS3",
        "Amazon Simple Storage Service",
        "GB-Mo",
        &["TimedStorage-ByteHrs", "Requests-Tier1", "Requests-Tier2"],
        "StandardStorage",
        230_000_000,
    ),
    (
        "AmazonRDS",
        "Amazon Relational Database Service",
        "Hrs",
        &["InstanceUsage:db.r5.large", "RDS:GP2-Storage"],
        "CreateDBInstance:0021",
        2_500_000_000,
    ),
    ("AWSLambda", "AWS Lambda", "Lambda-GB-Second", &["Lambda-GB-Second", "Request"], "Invoke", 166_667),
    (
        "AmazonCloudWatch",
        "AmazonCloudWatch",
        "Metrics",
        &["CW:MetricMonitorUsage", "DataProcessing-Bytes"],
        "MetricStorage",
        3_000_000_000,
    ),
    (
        "AmazonDynamoDB",
        "Amazon DynamoDB",
        "ReadRequestUnits",
        &["ReadRequestUnits", "WriteRequestUnits"],
        "PayPerRequestThroughput",
        1_250,
    ),
    ("AWSQueueService", "Amazon Simple Queue Service", "Requests", &["Requests-RBP"], "SendMessage", 4_000),
    (
        "AmazonVPC",
        "Amazon Virtual Private Cloud",
        "Hrs",
        &["NatGateway-Hours", "PublicIPv4:InUseAddress"],
        "NatGateway",
        450_000_000,
    ),
    ("awskms", "AWS Key Management Service", "Requests", &["KMS-Requests"], "Decrypt", 30_000),
    (
        "AmazonCloudFront",
        "Amazon CloudFront",
        "GB",
        &["DataTransfer-Out-Bytes", "Requests-Tier2-HTTPS"],
        "GET",
        850_000_000,
    ),
];
const REGIONS: [(&str, &str); 4] = [
    ("us-east-1", "US East (N. Virginia)"),
    ("eu-central-1", "EU (Frankfurt)"),
    ("us-west-2", "US West (Oregon)"),
    ("eu-west-1", "EU (Ireland)"),
];
const TEAMS: [&str; 8] =
    ["red", "blue", "green", "search", "billing", "data, warehouse", "platform \"core\"", "müller"];

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Usage,
    RiUsage,
    SpUsage,
    SpNegation,
    RiFee,
    SpFee,
    Tax,
    Credit,
    Refund,
    Discount,
}

/// One line of the bill; amounts in 10^-10.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) kind: Kind,
    pub(super) service: &'static Service,
    pub(super) usage_type: &'static str,
    pub(super) region: (&'static str, &'static str),
    pub(super) account: u64,
    pub(super) resource: u64,
    /// Hour of the month, and how many the line lasts.
    pub(super) hour: i64,
    pub(super) hours: i64,
    pub(super) quantity: i64,
    pub(super) price: i64,
    pub(super) billed: i64,
    pub(super) effective: i64,
    pub(super) list: i64,
    /// Of a commitment's fee: all of it, and what was used.
    pub(super) committed: (i64, i64),
    /// Seconds since 1970 of the month's first and last instant.
    pub(super) period: (i64, i64),
}

/// Makes lines.
pub(super) struct Lines {
    state: u64,
    number: u64,
    period: (i64, i64),
    restate: bool,
    /// A negation follows the usage that it takes back.
    next: Option<Line>,
}

impl Lines {
    pub(super) fn new(seed: u64, period: &str, restate: bool) -> Result<Self, String> {
        let wrong = || format!("{period} is no month; write it as 2025-01");
        let (year, month) = period.split_once('-').ok_or_else(wrong)?;
        let year: i32 = year.parse().map_err(|_| wrong())?;
        let month = month.parse::<u8>().ok().and_then(|month| Month::try_from(month).ok()).ok_or_else(wrong)?;
        let start = |year, month| {
            Date::from_calendar_date(year, month, 1).map(|date| date.midnight().assume_utc().unix_timestamp())
        };
        let from = start(year, month).map_err(|_| wrong())?;
        let to = start(if month == Month::December { year + 1 } else { year }, month.next()).map_err(|_| wrong())?;
        Ok(Self { state: seed, number: 0, period: (from, to), restate, next: None })
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random() % bound.max(1)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let at = self.below(of.len() as u64) as usize;
        of.get(at).copied()
    }

    /// The next line, counted into `totals`.
    pub(super) fn next(&mut self, totals: &mut Totals) -> Line {
        let line = match self.next.take() {
            Some(line) => line,
            None => self.make(),
        };
        totals.billed += i128::from(line.billed);
        totals.effective += i128::from(line.effective);
        *totals.services.entry(line.service.1).or_default() += i128::from(line.billed);
        line
    }

    fn make(&mut self) -> Line {
        self.number += 1;
        // A few services make most lines.
        let at = (self.below(10) * self.below(10) / 10) as usize;
        let service = SERVICES.get(at).unwrap_or(&SERVICES[0]);
        let usage_type = self.pick(service.3).unwrap_or_default();
        let region = self.pick(&REGIONS).unwrap_or(REGIONS[0]);
        let hours = (self.period.1 - self.period.0) / 3600;
        let hour = self.below(hours as u64) as i64;
        let resource = self.below(20_000);
        let quantity = match self.below(4) {
            0 => 10_000_000_000,
            _ => 1 + self.below(50_000_000_000) as i64,
        };
        let restated = if self.restate && self.number % 10 == 3 { 2 } else { 1 };
        let price = service.5 * restated;
        let cost = (i128::from(quantity) * i128::from(price) / 10_000_000_000) as i64;
        let mut line = Line {
            number: self.number,
            kind: Kind::Usage,
            service,
            usage_type,
            region,
            account: 111_111_111_100 + resource % 12,
            resource,
            hour,
            hours: 1,
            quantity,
            price,
            billed: cost,
            effective: cost,
            list: cost,
            committed: (0, 0),
            period: self.period,
        };
        let monthly = |line: &mut Line, kind| {
            (line.kind, line.hour, line.hours) = (kind, 0, hours);
            (line.billed, line.effective, line.list) = (0, 0, 0);
        };
        match (self.below(1000), service.0) {
            (0..=249, "AmazonEC2") => {
                (line.kind, line.effective) = (Kind::SpUsage, cost * 7 / 10);
                let negation = Line { kind: Kind::SpNegation, billed: -cost, effective: 0, list: 0, ..line.clone() };
                self.next = Some(negation);
            }
            (250..=349, "AmazonEC2" | "AmazonRDS") => {
                (line.kind, line.billed, line.effective) = (Kind::RiUsage, 0, cost * 6 / 10);
            }
            (900..=901, _) => {
                monthly(&mut line, Kind::RiFee);
                (line.billed, line.effective, line.list) = (216_000_000_000, 3_333_333_333, 216_000_000_000);
            }
            (902..=903, _) => {
                monthly(&mut line, Kind::SpFee);
                let unused = self.below(10_000_000_000) as i64;
                (line.billed, line.effective, line.list) = (360_000_000_000, unused, 360_000_000_000);
                line.committed = (360_000_000_000, 360_000_000_000 - unused);
            }
            (904..=905, _) => {
                monthly(&mut line, Kind::Tax);
                line.billed = cost / 5;
            }
            (906..=907, _) => {
                monthly(&mut line, Kind::Credit);
                line.billed = -cost;
            }
            (908, _) => {
                monthly(&mut line, Kind::Refund);
                line.billed = -cost / 2;
            }
            (909..=911, _) => {
                monthly(&mut line, Kind::Discount);
                line.billed = -cost / 10;
            }
            _ => {}
        }
        if matches!(line.kind, Kind::Tax | Kind::Credit | Kind::Refund | Kind::Discount) {
            (line.effective, line.list) = (line.billed, line.billed);
        }
        line
    }
}

impl Line {
    pub(super) fn is_use(&self) -> bool {
        matches!(self.kind, Kind::Usage | Kind::RiUsage | Kind::SpUsage)
    }

    pub(super) fn team(&self) -> Option<&'static str> {
        TEAMS.get((self.resource % 11) as usize).copied()
    }

    pub(super) fn start(&self) -> i64 {
        self.period.0 + self.hour * 3600
    }

    pub(super) fn end(&self) -> i64 {
        self.start() + self.hours * 3600
    }

    pub(super) fn resource_arn(&self) -> Option<String> {
        let (region, resource) = (self.region.0, self.resource);
        self.is_use().then(|| {
            format!("arn:aws:{}:{region}:{}:thing/{resource:017x}", self.service.0.to_lowercase(), self.account)
        })
    }

    pub(super) fn reservation(&self) -> Option<String> {
        let held = matches!(self.kind, Kind::RiUsage | Kind::RiFee);
        held.then(|| format!("arn:aws:ec2:eu-central-1:111111111100:reserved-instances/{:08x}", self.resource % 7))
    }

    pub(super) fn savings_plan(&self) -> Option<String> {
        let held = matches!(self.kind, Kind::SpUsage | Kind::SpNegation | Kind::SpFee);
        held.then(|| format!("arn:aws:savingsplans::111111111100:savingsplan/{:08x}", self.resource % 5))
    }

    pub(super) fn description(&self) -> String {
        format!(
            "${} per {}, {} in {}",
            super::decimal(i128::from(self.price)),
            self.service.2,
            self.usage_type,
            self.region.1
        )
    }
}
