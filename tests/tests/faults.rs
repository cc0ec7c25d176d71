//! Any service may be killed (SIGKILL) between any two stages of a connection and started again: the connection is verified, its stack completes, once.
//!
//! Each case stops everything at the stage: the service that does the next one is down when the stage is reached. Then the victim is killed and
//! started again, and after it whoever is down. Where the victim itself does the next stage, it is killed a second time, with the work in hand.

// Tests may panic; clippy's own exception does not reach the helpers of an integration test.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::{collections::BTreeMap, sync::OnceLock};

use common::{ANSWERS, Launched, PATIENCE, World, sqs, until};
use contracts::{Stream, TenantId, connection::ConnectionState, costs::ExportLocation, enrollment::EnrollmentOffer};
use sandbox::{
    Account,
    Service::{self, CallbackIngest, CostIngestion, RoleChainBroker, TenantRegistry},
    SystemOptions,
};
use tokio::{runtime::Runtime, sync::Mutex};

/// Three lines of a report in the form of the samples, which sum up to this.
const EXPORT: &[u8] = include_bytes!("../data/three-lines.snappy.parquet");
const EXPORT_TOTAL: &str = "3.875";

/// What has just been stored, or seen, when the kill comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    TenantCreated,
    PrincipalReady,
    OfferMade,
    StackLaunched,
    CallbackStored,
    VerifyJobStored,
    ReportStored,
    VerifiedEventStored,
    OutcomeStored,
    CostJobStored,
}

impl Stage {
    /// The services with work in hand from here on.
    const fn workers(self) -> &'static [Service] {
        match self {
            Self::TenantCreated | Self::VerifyJobStored => &[RoleChainBroker],
            Self::PrincipalReady | Self::CallbackStored | Self::ReportStored => &[TenantRegistry],
            Self::OfferMade => &[],
            Self::StackLaunched | Self::OutcomeStored => &[CallbackIngest],
            // The registry still has the outcome to publish.
            Self::VerifiedEventStored => &[CostIngestion, TenantRegistry],
            // The broker is asked for credentials.
            Self::CostJobStored => &[CostIngestion, RoleChainBroker],
        }
    }

    /// Whether costs are part of it.
    const fn has_costs(self) -> bool {
        matches!(self, Self::VerifiedEventStored | Self::CostJobStored)
    }
}

/// A connection on its way.
struct Run {
    stage: Stage,
    account: Account,
    export: Option<ExportLocation>,
    before: BTreeMap<&'static str, u64>,
    tenant: Option<TenantId>,
    offer: Option<EnrollmentOffer>,
    launched: Option<Launched>,
}

impl Run {
    async fn new(world: &mut World, stage: Stage) -> Self {
        let account = world.customer().await;
        let mut export = None;
        if stage.has_costs() {
            let bucket = format!("costs-of-{}", account.id());
            account.create_bucket(&bucket).await.expect("a bucket");
            account.put_object(&bucket, "cur/three-lines.snappy.parquet", EXPORT.to_vec()).await.expect("an export");
            export = Some(ExportLocation { bucket, prefix: "cur".to_owned() });
        }
        let mut before = BTreeMap::new();
        for stream in Stream::ALL.iter().map(|stream| stream.name()).chain([ANSWERS]) {
            before.insert(stream, world.stored(stream).await);
        }
        Self { stage, account, export, before, tenant: None, offer: None, launched: None }
    }

    async fn create_tenant(&mut self, world: &World) -> TenantId {
        match self.tenant {
            Some(tenant) => tenant,
            None => *self.tenant.insert(world.operator.create_tenant("Acme").await.expect("a tenant").tenant),
        }
    }

    async fn make_offer(&mut self, world: &World) -> EnrollmentOffer {
        let tenant = self.create_tenant(world).await;
        if self.offer.is_none() {
            world.operator.principal_ready(tenant, PATIENCE).await.expect("its principal");
            self.offer = Some(world.offer(tenant, self.export.clone()).await);
        }
        self.offer.clone().expect("just made")
    }

    async fn launch(&mut self, world: &World) {
        if self.launched.is_none() {
            let offer = self.make_offer(world).await;
            self.launched = Some(world.launch(&self.account, offer).await);
        }
    }

    /// Messages that `stream` has stored since the run began.
    async fn stored(&self, world: &World, stream: &'static str) -> u64 {
        world.stored(stream).await - self.before[stream]
    }

    async fn wait_stored(&self, world: &World, stream: Stream, count: u64) {
        let there = until(PATIENCE, async || self.stored(world, stream.name()).await >= count).await;
        assert!(there, "{:?} was not reached on {}\n{}", self.stage, stream.name(), world.complaints());
    }

    async fn reached(&self, world: &World) {
        match self.stage {
            Stage::TenantCreated => self.wait_stored(world, Stream::TenantEvents, 1).await,
            Stage::PrincipalReady => self.wait_stored(world, Stream::PrincipalEvents, 1).await,
            Stage::OfferMade => {}
            Stage::StackLaunched => {
                let here = until(PATIENCE, async || {
                    sqs::waiting(&world.system).await > 0 || self.stored(world, Stream::Callbacks.name()).await > 0
                });
                assert!(here.await, "the stack did not call back\n{}", world.system.emulator.log_text());
            }
            Stage::CallbackStored => self.wait_stored(world, Stream::Callbacks, 1).await,
            Stage::VerifyJobStored => self.wait_stored(world, Stream::Jobs, 1).await,
            Stage::ReportStored => self.wait_stored(world, Stream::Reports, 1).await,
            // After `registered`.
            Stage::VerifiedEventStored => self.wait_stored(world, Stream::ConnectionEvents, 2).await,
            // After `received`.
            Stage::OutcomeStored => self.wait_stored(world, Stream::Callbacks, 2).await,
            // After the verify job.
            Stage::CostJobStored => self.wait_stored(world, Stream::Jobs, 2).await,
        }
    }

    /// Brings the connection to its stage, with the service down that does the next one.
    async fn hold(&mut self, world: &mut World) {
        match self.stage {
            Stage::TenantCreated => {
                world.kill(RoleChainBroker);
                self.create_tenant(world).await;
            }
            Stage::PrincipalReady => {
                world.kill(RoleChainBroker);
                self.create_tenant(world).await;
                self.wait_stored(world, Stream::TenantEvents, 1).await;
                world.kill(TenantRegistry);
                world.start_again(RoleChainBroker).await;
            }
            Stage::OfferMade => drop(self.make_offer(world).await),
            Stage::StackLaunched => self.launch_without(world, CallbackIngest).await,
            Stage::CallbackStored => self.launch_without(world, TenantRegistry).await,
            Stage::VerifyJobStored => self.launch_without(world, RoleChainBroker).await,
            Stage::ReportStored => self.swap_at_the_job(world, TenantRegistry).await,
            Stage::VerifiedEventStored => self.launch_without(world, CostIngestion).await,
            Stage::OutcomeStored => self.swap_at_the_job(world, CallbackIngest).await,
            Stage::CostJobStored => panic!("nothing stands still here: one service writes the job and takes it"),
        }
        self.reached(world).await;
    }

    async fn launch_without(&mut self, world: &mut World, service: Service) {
        self.make_offer(world).await;
        world.kill(service);
        self.launch(world).await;
    }

    /// Holds the verify job back until `service`, which was needed up to here, is down.
    async fn swap_at_the_job(&mut self, world: &mut World, service: Service) {
        self.launch_without(world, RoleChainBroker).await;
        // This stack's own: connections of before are watched, and have jobs of their own.
        let tenant = self.launched.as_ref().expect("launched").tenant;
        let job = format!("rolebridge.internal.v1.jobs.verify.{tenant}.*");
        let there = until(PATIENCE, async || world.held_on(Stream::Jobs, &job).await > 0).await;
        assert!(there, "the job of {tenant} did not come\n{}", world.complaints());
        world.kill(service);
        world.start_again(RoleChainBroker).await;
    }

    /// Lets everything run up to the stage, and beyond it as fast as it will.
    async fn race(&mut self, world: &World) {
        match self.stage {
            Stage::TenantCreated | Stage::PrincipalReady => drop(self.create_tenant(world).await),
            Stage::OfferMade => drop(self.make_offer(world).await),
            _ => self.launch(world).await,
        }
        self.reached(world).await;
    }

    /// Does what people still have to do, waits until nothing is left to be done, and counts.
    async fn connects_once(mut self, world: &World) {
        self.launch(world).await;
        let launched = self.launched.as_ref().expect("launched");
        world.completed(launched).await;
        world.quiet().await;
        let connection = world.only_connection(launched.tenant).await;
        assert_eq!(connection.state, ConnectionState::Verified);
        let (tenant, id) = (launched.tenant, connection.connection);
        for event in ["registered", "verified", "*"] {
            let subject = format!("rolebridge.events.v1.connection.{event}.{tenant}.{id}");
            let wanted = if event == "*" { 2 } else { 1 };
            assert_eq!(world.held_on(Stream::ConnectionEvents, &subject).await, wanted, "events {event}");
        }
        assert_eq!(self.stored(world, ANSWERS).await, 1, "answers to CloudFormation");
        assert_eq!(self.stored(world, Stream::DeadLetters.name()).await, 0, "dead letters\n{}", world.complaints());
        assert_eq!(sqs::given_up(&world.system).await, 0, "callbacks that SQS gave up on");

        let events = self.account.stack_events(&launched.stack).await.expect("the stack's events");
        for resource in ["rolebridge", "Connection"] {
            let statuses: Vec<&str> =
                events.iter().filter(|event| event.logical_id == resource).map(|event| event.status.as_str()).collect();
            assert_eq!(statuses, ["CREATE_IN_PROGRESS", "CREATE_COMPLETE"], "{resource}");
        }
        if self.export.is_some() {
            let costs = world.operator.costs(tenant).await.expect("costs");
            assert_eq!((costs.rows, costs.totals[0].billed.to_string()), (3, EXPORT_TOTAL.to_owned()));
            let said = format!("rolebridge.events.v1.costs.ingested.{tenant}.{id}");
            assert_eq!(world.held_on(Stream::CostsEvents, &said).await, 1, "events on costs");
        }
    }
}

/// Kills `victim` at the stage, in every way that there is, and starts it again.
async fn case(world: &mut World, stage: Stage, victim: Service) {
    world.start_missing().await;
    if stage != Stage::CostJobStored {
        let mut run = Run::new(world, stage).await;
        run.hold(world).await;
        world.strike(victim).await;
        world.start_missing().await;
        run.connects_once(world).await;
    }
    if stage.workers().contains(&victim) || stage == Stage::CostJobStored {
        let mut run = Run::new(world, stage).await;
        run.race(world).await;
        world.strike(victim).await;
        run.connects_once(world).await;
    }
}

/// A system whose callback-ingest takes from the queue in one loop: each that is killed leaves a poll behind that the emulator still answers, and what
/// it was given is lost for a while.
async fn start() -> World {
    let environment = BTreeMap::from([("ROLEBRIDGE_SQS_POLLERS".to_owned(), "1".to_owned())]);
    World::with(SystemOptions { environment, ..SystemOptions::default() }).await
}

/// Runs the case on a system that all cases of this victim share: it has survived the ones before.
fn killed(victim: Service, stage: Stage) {
    static SYSTEMS: [OnceLock<(Runtime, Mutex<World>)>; 4] = [const { OnceLock::new() }; 4];
    let (runtime, world) = SYSTEMS[victim as usize].get_or_init(|| {
        let runtime = Runtime::new().expect("a runtime");
        let world = Mutex::new(runtime.block_on(start()));
        (runtime, world)
    });
    runtime.block_on(async { case(&mut *world.lock().await, stage, victim).await });
}

// Named by the stage first, so that tests that run side by side are mostly of different systems.
macro_rules! each_service_killed {
    ($($name:ident: $stage:ident,)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn callback_ingest_killed() {
                killed(CallbackIngest, Stage::$stage);
            }

            #[test]
            fn cost_ingestion_killed() {
                killed(CostIngestion, Stage::$stage);
            }

            #[test]
            fn role_chain_broker_killed() {
                killed(RoleChainBroker, Stage::$stage);
            }

            #[test]
            fn tenant_registry_killed() {
                killed(TenantRegistry, Stage::$stage);
            }
        })*
    };
}

each_service_killed! {
    at_1_tenant_created: TenantCreated,
    at_2_principal_ready: PrincipalReady,
    at_3_offer_made: OfferMade,
    at_4_stack_launched: StackLaunched,
    at_5_callback_stored: CallbackStored,
    at_6_verify_job_stored: VerifyJobStored,
    at_7_report_stored: ReportStored,
    at_8_verified_event_stored: VerifiedEventStored,
    at_8_outcome_stored: OutcomeStored,
    at_9_cost_job_stored: CostJobStored,
}

#[tokio::test(flavor = "multi_thread")]
async fn all_four_services_killed_at_once() {
    let mut world = start().await;
    for stage in [Stage::CallbackStored, Stage::VerifyJobStored, Stage::OutcomeStored] {
        let mut run = Run::new(&mut world, stage).await;
        run.race(&world).await;
        Service::ALL.into_iter().for_each(|service| world.kill(service));
        world.start_missing().await;
        run.connects_once(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_goes_on_after_nats_is_killed_in_the_middle() {
    let mut world = start().await;
    for stage in [Stage::StackLaunched, Stage::VerifyJobStored, Stage::OutcomeStored] {
        let mut run = Run::new(&mut world, stage).await;
        run.race(&world).await;
        world.system.nats.kill();
        world.system.nats.restart().await.expect("nats-server starts again");
        assert!(until(PATIENCE, async || world.bus.is_connected()).await, "the operator is connected again");
        run.connects_once(&world).await;
    }
    for service in Service::ALL {
        assert!(world.system.service(service).expect("a service").is_running(), "{} lives on", service.name());
    }
}
