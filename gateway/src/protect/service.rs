//! Keeps the data keys of KMS fresh while a gateway runs.

use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use tokio::sync::OnceCell;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::Protection;
use super::kms::{self, Kms};
use crate::config::Config;
use crate::shared::Shared;

/// How often it is looked whether a data key is due.
const LOOK: Duration = Duration::from_secs(1);

/// What gives data keys; not asked where no rule needs one.
#[derive(Debug, Default)]
pub(crate) struct KeyService(OnceCell<Kms>);

impl KeyService {
    async fn kms(&self, config: &Config) -> &Kms {
        let connect = || async {
            let mut loader = aws_config::defaults(BehaviorVersion::latest());
            if let Some(region) = &config.region {
                loader = loader.region(Region::new(region.clone()));
            }
            Kms::new(aws_sdk_kms::Client::new(&loader.load().await))
        };
        self.0.get_or_init(connect).await
    }

    /// Fetches what the rules need: a gateway that cannot protect does not start.
    pub(crate) async fn prepare(&self, config: &Config, protection: &Protection) -> Result<(), kms::Error> {
        for key in protection.services() {
            self.kms(config).await.renew(&key).await?;
        }
        Ok(())
    }

    /// Fetches again what is due, for ever. What a reload brings is fetched too.
    pub(crate) async fn run(self, shared: Arc<Shared>) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            ticks.tick().await;
            let mut failed = false;
            for inbound in &shared.streams {
                for key in inbound.protection().services().into_iter().filter(|key| key.is_due()) {
                    if let Err(error) = self.kms(&shared.config).await.renew(&key).await {
                        failed = true;
                        if !failing {
                            let (stream, ready) = (&*inbound.name, key.is_ready());
                            warn!(stream, code = error.code(), ready, "a data key was not renewed: {error}");
                        }
                    }
                }
            }
            if failing && !failed {
                info!("KMS gives data keys again");
            }
            failing = failed;
        }
    }
}
