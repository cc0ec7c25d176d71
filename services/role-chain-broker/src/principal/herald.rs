//! Tells what happened to a principal.

use async_trait::async_trait;
use messaging::{Bus, PublishError, RawMessage};

/// The narrow door to the bus. Returns when the stream has the message; the same message again is the same event.
#[async_trait]
pub trait Herald: Send + Sync {
    async fn tell(&self, message: &RawMessage) -> Result<(), PublishError>;
}

#[async_trait]
impl Herald for Bus {
    async fn tell(&self, message: &RawMessage) -> Result<(), PublishError> {
        self.publish_raw(message).await
    }
}
