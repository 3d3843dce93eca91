//! What control operations set on streams and consumers, and their limits.

use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{
    EncryptionType, MetricsName, MinimumThroughputBillingCommitmentInput,
    MinimumThroughputBillingCommitmentInputStatus as Wanted,
    MinimumThroughputBillingCommitmentOutputStatus as Commitment, ScalingType, ShardIteratorType, StreamMode,
    StreamModeDetails, StreamStatus,
};
use headworks_local::Settings;
use headworks_local::kinesis::DailyLimits;

use crate::support::{FIRST, Fixture, fixture, fixture_with, from};

const DAY_MS: i64 = 24 * 3_600_000;

fn mode(mode: StreamMode) -> StreamModeDetails {
    StreamModeDetails::builder().stream_mode(mode).build().unwrap()
}

async fn summary(f: &Fixture, stream: &str) -> aws_sdk_kinesis::types::StreamDescriptionSummary {
    let answer = f.client.describe_stream_summary().stream_name(stream).send().await.unwrap();
    answer.stream_description_summary.unwrap()
}

/// A client that answers throttling at once, as tests of limits want it.
fn once(f: &Fixture) -> aws_sdk_kinesis::Client {
    let retry = aws_sdk_kinesis::config::retry::RetryConfig::disabled();
    aws_sdk_kinesis::Client::from_conf(f.client.config().to_builder().retry_config(retry).build())
}

#[tokio::test]
async fn encryption_is_kept_and_shown_on_streams_puts_and_records() {
    let f = fixture().await;
    let arn = f.create("s", 1).await;
    f.put("s", 0, "plain").await;
    f.clock.advance_ms(10);
    let start = |kind: EncryptionType| {
        f.client
            .start_stream_encryption()
            .stream_name("s")
            .encryption_type(kind)
            .key_id("alias/aws/kinesis")
            .send()
    };
    let refused = start(EncryptionType::None).await.unwrap_err().into_service_error();
    assert!(refused.is_invalid_argument_exception(), "{refused:?}");
    start(EncryptionType::Kms).await.unwrap();
    let shown = summary(&f, "s").await;
    assert_eq!(shown.encryption_type, Some(EncryptionType::Kms));
    assert_eq!(shown.key_id.as_deref(), Some("alias/aws/kinesis"));
    let described = f.client.describe_stream().stream_name("s").send().await.unwrap();
    assert_eq!(described.stream_description.unwrap().key_id.as_deref(), Some("alias/aws/kinesis"));
    let put = f.client.put_record().stream_name("s").partition_key("k").data(Blob::new("kms")).send().await;
    assert_eq!(put.unwrap().encryption_type, Some(EncryptionType::Kms));
    f.clock.advance_ms(10);

    let stop = f.client.stop_stream_encryption().stream_arn(&arn).encryption_type(EncryptionType::Kms);
    stop.key_id("alias/aws/kinesis").send().await.unwrap();
    assert_eq!(summary(&f, "s").await.encryption_type, Some(EncryptionType::None));
    f.put("s", 0, "plain again").await;
    let kinds = |records: &[aws_sdk_kinesis::types::Record]| -> Vec<_> {
        records.iter().map(|record| record.encryption_type.clone().unwrap()).collect()
    };
    let expected = [EncryptionType::None, EncryptionType::Kms, EncryptionType::None];
    assert_eq!(kinds(&f.all("s", FIRST).await.records), expected);
    let consumer = f.register(&arn, "c").await;
    let mut events = f.subscribe(&consumer, FIRST, from(ShardIteratorType::TrimHorizon)).await;
    assert_eq!(kinds(&events.next().await.records), expected);
}

#[tokio::test]
async fn shard_level_metrics_are_switched_on_and_off() {
    let f = fixture().await;
    let arn = f.create("s", 1).await;
    let on = f.client.enable_enhanced_monitoring().stream_name("s");
    let on = on.shard_level_metrics(MetricsName::IncomingBytes).send().await.unwrap();
    assert!(on.current_shard_level_metrics.unwrap_or_default().is_empty());
    assert_eq!(on.desired_shard_level_metrics.unwrap(), [MetricsName::IncomingBytes]);
    assert_eq!(on.stream_arn.unwrap(), arn);
    f.client
        .enable_enhanced_monitoring()
        .stream_arn(&arn)
        .shard_level_metrics(MetricsName::All)
        .send()
        .await
        .unwrap();
    let off = f.client.disable_enhanced_monitoring().stream_name("s");
    let off = off.shard_level_metrics(MetricsName::IncomingBytes).send().await.unwrap();
    assert_eq!(off.current_shard_level_metrics.unwrap().len(), 7);
    assert_eq!(off.desired_shard_level_metrics.unwrap().len(), 6);
    let shown = summary(&f, "s").await.enhanced_monitoring;
    let shown = shown[0].shard_level_metrics.clone().unwrap();
    assert!(shown.len() == 6 && !shown.contains(&MetricsName::IncomingBytes), "{shown:?}");
    let bad = f.client.enable_enhanced_monitoring().stream_name("s").shard_level_metrics("Weather".into());
    let bad = bad.send().await.unwrap_err();
    assert_eq!(bad.as_service_error().unwrap().meta().code(), Some("ValidationException"));
}

#[tokio::test]
async fn policies_of_streams_and_consumers() {
    const POLICY: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*"}]}"#;
    let f = fixture().await;
    let stream = f.create("s", 1).await;
    let consumer = f.register(&stream, "c").await;
    for arn in [&stream, &consumer] {
        let get = || f.client.get_resource_policy().resource_arn(arn).send();
        assert_eq!(get().await.unwrap().policy, "{}");
        let bad = f.client.put_resource_policy().resource_arn(arn).policy("allow").send().await.unwrap_err();
        assert!(bad.into_service_error().is_invalid_argument_exception());
        f.client.put_resource_policy().resource_arn(arn).policy(POLICY).send().await.unwrap();
        assert_eq!(get().await.unwrap().policy, POLICY);
        f.client.delete_resource_policy().resource_arn(arn).send().await.unwrap();
        let none = f.client.delete_resource_policy().resource_arn(arn).send().await.unwrap_err();
        let none = none.into_service_error();
        assert!(none.is_resource_not_found_exception());
        assert_eq!(
            none.message(),
            Some(format!("No resource policy found for resource ARN {arn}.").as_str())
        );
    }
    let nowhere = f.client.get_resource_policy().resource_arn(stream.replace("/s", "/nowhere")).send().await;
    assert!(nowhere.unwrap_err().into_service_error().is_resource_not_found_exception());
}

#[tokio::test]
async fn the_largest_record_is_changed() {
    let f = fixture().await;
    let arn = f.create("s", 1).await;
    let put = || {
        let call = f.client.put_record().stream_name("s").partition_key("k");
        call.data(Blob::new(vec![0; 2 << 20])).send()
    };
    assert!(put().await.is_err());
    let set =
        |kib: i32| f.client.update_max_record_size().stream_arn(&arn).max_record_size_in_kib(kib).send();
    let error = set(1_023).await.unwrap_err().into_service_error();
    assert!(error.is_validation_exception(), "{error:?}");
    set(4_096).await.unwrap();
    assert_eq!(summary(&f, "s").await.max_record_size_in_kib, Some(4_096));
    put().await.unwrap();
}

#[tokio::test]
async fn a_stream_switches_its_mode_twice_a_day() {
    let f = fixture_with(Settings { daily_limits: Some(DailyLimits::AWS), ..Settings::default() }).await;
    let arn = f.create("s", 2).await;
    let switch =
        |to: StreamMode| f.client.update_stream_mode().stream_arn(&arn).stream_mode_details(mode(to)).send();
    switch(StreamMode::OnDemand).await.unwrap();
    let shown = summary(&f, "s").await;
    assert_eq!(shown.stream_mode_details.unwrap().stream_mode, StreamMode::OnDemand);
    assert_eq!(shown.open_shard_count, 2);
    // Only provisioned streams are resharded by hand.
    let scale = f.client.update_shard_count().stream_name("s").target_shard_count(4);
    let error =
        scale.scaling_type(ScalingType::UniformScaling).send().await.unwrap_err().into_service_error();
    assert!(error.is_validation_exception(), "{error:?}");
    let split = f.client.split_shard().stream_name("s").shard_to_split(FIRST).new_starting_hash_key("9");
    assert!(split.send().await.unwrap_err().into_service_error().is_validation_exception());
    switch(StreamMode::Provisioned).await.unwrap();
    let error = switch(StreamMode::OnDemand).await.unwrap_err().into_service_error();
    assert!(error.is_limit_exceeded_exception(), "{error:?}");
    f.clock.advance_ms(DAY_MS);
    switch(StreamMode::OnDemand).await.unwrap();
}

#[tokio::test]
async fn shards_are_counted_anew_ten_times_a_day_and_encryption_starts_twenty_five_times() {
    let f = fixture_with(Settings { daily_limits: Some(DailyLimits::AWS), ..Settings::default() }).await;
    f.create("s", 2).await;
    let scale = |to: i32| {
        let call = f.client.update_shard_count().stream_name("s").target_shard_count(to);
        call.scaling_type(ScalingType::UniformScaling).send()
    };
    let over = scale(5).await.unwrap_err().into_service_error();
    assert!(over.is_invalid_argument_exception(), "more than double: {over:?}");
    for n in 0..10 {
        scale(if n % 2 == 0 { 3 } else { 2 }).await.unwrap();
    }
    let over = scale(3).await.unwrap_err().into_service_error();
    assert!(over.is_limit_exceeded_exception(), "{over:?}");
    assert!(over.message().unwrap().contains("10 times within 24 hours"), "{over:?}");
    f.clock.advance_ms(DAY_MS);
    scale(3).await.unwrap();

    let start = || {
        let call = f.client.start_stream_encryption().stream_name("s").key_id("key");
        call.encryption_type(EncryptionType::Kms).send()
    };
    for _ in 0..25 {
        start().await.unwrap();
    }
    assert!(start().await.unwrap_err().into_service_error().is_limit_exceeded_exception());
}

#[tokio::test]
async fn warm_throughput_is_for_on_demand_streams_of_accounts_that_have_committed() {
    let f = fixture().await;
    let create = |name: &str| {
        let call = f.client.create_stream().stream_name(name).warm_throughput_mibps(6);
        call.stream_mode_details(mode(StreamMode::OnDemand)).send()
    };
    let refused = create("early").await.unwrap_err().into_service_error();
    assert!(refused.is_invalid_argument_exception(), "{refused:?}");

    let commit = |status: Wanted| {
        let wanted = MinimumThroughputBillingCommitmentInput::builder().status(status).build().unwrap();
        f.client.update_account_settings().minimum_throughput_billing_commitment(wanted).send()
    };
    let answer = commit(Wanted::Enabled).await.unwrap().minimum_throughput_billing_commitment.unwrap();
    assert_eq!(answer.status, Commitment::Enabled);
    create("s").await.unwrap();
    let shown = summary(&f, "s").await;
    assert_eq!(shown.open_shard_count, 6);
    assert_eq!(shown.warm_throughput.unwrap().target_mibps, Some(6));
    let warm = f.client.update_stream_warm_throughput().stream_name("s").warm_throughput_mibps(9);
    let warm = warm.send().await.unwrap().warm_throughput.unwrap();
    assert_eq!((warm.target_mibps, warm.current_mibps), (Some(9), Some(9)));

    f.create("provisioned", 1).await;
    let warm = f.client.update_stream_warm_throughput().stream_name("provisioned").warm_throughput_mibps(9);
    assert!(warm.send().await.unwrap_err().into_service_error().is_validation_exception());

    let ending = commit(Wanted::Disabled).await.unwrap().minimum_throughput_billing_commitment.unwrap();
    assert_eq!(ending.status, Commitment::EnabledUntilEarliestAllowedEnd);
    f.clock.advance_ms(DAY_MS);
    let ended = f.client.describe_account_settings().send().await.unwrap();
    assert_eq!(ended.minimum_throughput_billing_commitment.unwrap().status, Commitment::Disabled);
}

#[tokio::test]
async fn streams_being_created_and_on_demand_streams_are_limited() {
    let settings = Settings {
        transition: std::time::Duration::from_secs(2),
        on_demand_stream_limit: 2,
        streams_creating: Some(5),
        ..Settings::default()
    };
    let f = fixture_with(settings).await;
    let client = once(&f);
    for n in 0..5 {
        client.create_stream().stream_name(format!("s{n}")).shard_count(1).send().await.unwrap();
    }
    let create = || client.create_stream().stream_name("sixth").shard_count(1).send();
    assert!(create().await.unwrap_err().into_service_error().is_limit_exceeded_exception());
    f.clock.advance_ms(2_000);
    create().await.unwrap();

    let on_demand = |n: usize| {
        let call = client.create_stream().stream_name(format!("d{n}"));
        call.stream_mode_details(mode(StreamMode::OnDemand)).send()
    };
    on_demand(0).await.unwrap();
    on_demand(1).await.unwrap();
    assert!(on_demand(2).await.unwrap_err().into_service_error().is_limit_exceeded_exception());
    f.clock.advance_ms(2_000);
    let arn = summary(&f, "s0").await.stream_arn;
    let switch = client.update_stream_mode().stream_arn(arn).stream_mode_details(mode(StreamMode::OnDemand));
    assert!(switch.send().await.unwrap_err().into_service_error().is_limit_exceeded_exception());
    let limits = client.describe_limits().send().await.unwrap();
    assert_eq!((limits.on_demand_stream_count, limits.on_demand_stream_count_limit), (2, 2));
}

#[tokio::test]
async fn changes_take_a_while_and_exclude_each_other() {
    let settings = Settings { transition: std::time::Duration::from_secs(2), ..Settings::default() };
    let f = fixture_with(settings).await;
    f.client.create_stream().stream_name("s").shard_count(1).send().await.unwrap();
    f.clock.advance_ms(2_000);
    let start = || {
        let call = f.client.start_stream_encryption().stream_name("s").key_id("key");
        call.encryption_type(EncryptionType::Kms).send()
    };
    start().await.unwrap();
    assert_eq!(summary(&f, "s").await.stream_status, StreamStatus::Updating);
    assert!(start().await.unwrap_err().into_service_error().is_resource_in_use_exception());
    f.clock.advance_ms(2_000);
    start().await.unwrap();
}
