//! Sends one record and says where it is: `cargo run -p headworks-producer --example send`.

use headworks_producer::{Producer, Record};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let producer = Producer::builder().endpoint("http://127.0.0.1:4400").connect().await?;
    let record =
        Record::builder("session-42")?.header("type", "order.placed")?.data(r#"{"total":12}"#).build();
    match producer.put(record).await?.stored() {
        Some(stored) => println!("{} {}", stored.shard_id, stored.sequence_number),
        None => println!("on the gateway's disk"),
    }
    producer.close(std::time::Duration::from_secs(5)).await;
    Ok(())
}
