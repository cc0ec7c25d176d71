//! The DNS names of AWS's partitions: what decides whether a host is AWS's own.

use contracts::Partition;

/// The suffix of service endpoints in `partition`, from AWS's
/// [`partitions.json`](https://github.com/aws/aws-sdk-go-v2/blob/main/codegen/smithy-aws-go-codegen/src/main/resources/software/amazon/smithy/aws/go/codegen/partitions.json).
/// `None` for a partition that we do not know: nothing is fetched from or sent to it.
pub(crate) fn suffix(partition: &Partition) -> Option<&'static str> {
    Some(match partition.as_str() {
        "aws" | "aws-us-gov" => "amazonaws.com",
        "aws-cn" => "amazonaws.com.cn",
        "aws-iso" => "c2s.ic.gov",
        "aws-iso-b" => "sc2s.sgov.gov",
        "aws-iso-e" => "cloud.adc-e.uk",
        "aws-iso-f" => "csp.hci.ic.gov",
        "aws-eusc" => "amazonaws.eu",
        _ => return None,
    })
}
