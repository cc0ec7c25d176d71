//! A role's look at itself, in memory. For unit tests.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use aws::Failure;
use contracts::{Region, RoleArn};

use super::{OwnRole, Reads};
use crate::{
    purpose::{Need, Read},
    sts::{Answer, Keys},
};

/// A role that allows all but some actions, and may be asked or not.
#[derive(Debug, Default)]
pub struct FakeInside {
    pub lacks: Vec<&'static str>,
    /// What every question to IAM meets.
    pub iam: Option<Failure>,
    /// What the next questions to IAM meet; `None` lets one pass.
    pub trouble: Mutex<VecDeque<Option<Failure>>>,
    /// What every read meets.
    pub reads: Option<Failure>,
    pub asked: Mutex<Vec<String>>,
}

impl FakeInside {
    fn iam(&self, what: &str) -> Result<(), Failure> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(what.to_owned());
        if let Some(Some(failure)) = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
            return Err(failure);
        }
        self.iam.clone().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl OwnRole for FakeInside {
    async fn longest_session(&self, _: &Keys, _: &RoleArn, _: &Region) -> Result<Answer<u32>, Failure> {
        self.iam("GetRole")?;
        Ok(Answer { value: 43_200, request_id: None })
    }

    async fn denied(&self, _: &Keys, _: &RoleArn, _: &Region, need: &Need) -> Result<Answer<Vec<String>>, Failure> {
        self.iam(&need.resource)?;
        let denied = need.actions.iter().filter(|action| self.lacks.contains(action));
        Ok(Answer { value: denied.map(|action| (*action).to_owned()).collect(), request_id: Some("iam-1".to_owned()) })
    }
}

#[async_trait]
impl Reads for FakeInside {
    async fn read(&self, _: &Keys, _: &Region, read: &Read) -> Result<Answer<()>, Failure> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(read.action().to_owned());
        self.reads.clone().map_or(Ok(Answer { value: (), request_id: Some("s3-1".to_owned()) }), Err)
    }
}
