package interop;

import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.common.KinesisClientUtil;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.RecordProcessorCheckpointer;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.fanout.FanOutConfig;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/**
 * One KCL worker: prints each record that it processes, and stops gracefully.
 *
 * <p>A line is {@code record TAB shard TAB sequence TAB sub-sequence TAB key TAB data}. With linger=0 exactly
 * {@code stop-after} records are printed and checkpointed, wherever in an aggregate that is. With linger=MS the worker
 * goes on for that long after them, so that repeats and surplus records are seen.
 */
public final class Kcl {
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    private final int stopAfter;
    private final boolean exact;
    private final boolean quiet;
    private final CountDownLatch reached = new CountDownLatch(1);
    private int printed;

    private Kcl(int stopAfter, boolean exact, boolean quiet) {
        this.quiet = quiet;
        this.stopAfter = stopAfter;
        this.exact = exact;
        if (stopAfter == 0) {
            reached.countDown();
        }
    }

    public static void main(String[] arguments) throws Exception {
        Options options = new Options(
                arguments, "stream", "application", "kinesis", "dynamodb", "mode", "stop-after", "linger", "start",
                "deadline", "region", "consumer", "quiet");
        String stream = options.text("stream");
        String application = options.text("application");
        int linger = options.number("linger", 0);
        Kcl kcl = new Kcl(options.number("stop-after"), linger == 0, options.number("quiet", 0) != 0);

        Region region = Region.of(options.text("region", "us-east-1"));
        StaticCredentialsProvider credentials =
                StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test"));
        // HTTP/2 with prior knowledge over http://, which is how the KCL's own helper sets the client up.
        KinesisAsyncClient kinesis = KinesisClientUtil.createKinesisAsyncClient(KinesisAsyncClient.builder()
                .region(region)
                .credentialsProvider(credentials)
                .endpointOverride(URI.create(options.text("kinesis"))));
        DynamoDbAsyncClient dynamodb = DynamoDbAsyncClient.builder()
                .region(region)
                .credentialsProvider(credentials)
                .endpointOverride(URI.create(options.text("dynamodb")))
                .build();
        // Never called: metrics go to the null factory.
        CloudWatchAsyncClient cloudwatch = CloudWatchAsyncClient.builder()
                .region(region)
                .credentialsProvider(credentials)
                .endpointOverride(URI.create("http://127.0.0.1:9"))
                .build();

        InitialPositionInStreamExtended start = InitialPositionInStreamExtended.newInitialPosition(
                InitialPositionInStream.valueOf(options.text("start", "TRIM_HORIZON")));
        ConfigsBuilder configs = new ConfigsBuilder(
                new SingleStreamTracker(stream, start),
                application,
                kinesis,
                dynamodb,
                cloudwatch,
                "kcl-" + UUID.randomUUID(),
                () -> kcl.new Processor());
        var retrieval = configs.retrievalConfig();
        switch (options.text("mode")) {
            case "polling" -> {
                PollingConfig polling = new PollingConfig(stream, kinesis);
                polling.idleTimeBetweenReadsInMillis(200);
                retrieval.retrievalSpecificConfig(polling);
            }
            case "fanout" -> retrieval.retrievalSpecificConfig(new FanOutConfig(kinesis)
                    .streamName(stream)
                    .applicationName(application)
                    .consumerName(options.text("consumer", application)));
            default -> throw new IllegalArgumentException("mode is polling or fanout");
        }
        var leases = configs.leaseManagementConfig();
        // The defaults make a start take a minute: a leader is elected, and looks every 20 s.
        leases.failoverTimeMillis(1500);
        leases.leaseAssignmentIntervalMillis(1000L);
        leases.shardSyncIntervalMillis(1000);
        leases.dynamoDbLockBasedLeaderLeaseDurationInMillis(3000);
        leases.dynamoDbLockBasedLeaderHeartbeatPeriodInMillis(1000);
        leases.workerUtilizationAwareAssignmentConfig().disableWorkerMetrics(true);
        // Finished leases stay, so that the other side finds them.
        leases.cleanupLeasesUponShardCompletion(false);
        var coordinator = configs.coordinatorConfig();
        coordinator.parentShardPollIntervalMillis(500);
        coordinator.shardConsumerDispatchPollIntervalMillis(200);
        var metrics = configs.metricsConfig().metricsFactory(new NullMetricsFactory());
        var processing = configs.processorConfig().callProcessRecordsEvenForEmptyRecordList(true);

        Scheduler scheduler = new Scheduler(
                configs.checkpointConfig(), coordinator, leases, configs.lifecycleConfig(), metrics, processing,
                retrieval);
        Thread worker = new Thread(scheduler, "scheduler");
        worker.setDaemon(true);
        worker.start();
        boolean enough = kcl.reached.await(options.number("deadline", 90), TimeUnit.SECONDS);
        if (enough && linger > 0) {
            Thread.sleep(linger);
        }
        boolean graceful = scheduler.startGracefulShutdown().get(60, TimeUnit.SECONDS);
        OUT.println("stopped\t" + (graceful ? "graceful" : "forced") + "\t" + kcl.printed);
        System.exit(enough && graceful ? 0 : 1);
    }

    /** Whether one more record is wanted; prints it if it is. */
    private synchronized boolean print(String shard, KinesisClientRecord record) {
        if (exact && printed >= stopAfter) {
            return false;
        }
        if (!quiet) {
            String data = StandardCharsets.UTF_8.decode(record.data().duplicate()).toString();
            OUT.println(String.join(
                    "\t", "record", shard, record.sequenceNumber(), Long.toString(record.subSequenceNumber()),
                    record.partitionKey(), data));
        }
        printed += 1;
        if (printed == stopAfter) {
            reached.countDown();
        }
        return true;
    }

    private final class Processor implements ShardRecordProcessor {
        private String shard;
        private boolean left;

        @Override
        public void initialize(InitializationInput input) {
            shard = input.shardId();
            OUT.println("begin\t" + shard + "\t" + input.extendedSequenceNumber().sequenceNumber() + "\t"
                    + input.extendedSequenceNumber().subSequenceNumber());
        }

        @Override
        public void processRecords(ProcessRecordsInput input) {
            KinesisClientRecord last = null;
            for (KinesisClientRecord record : input.records()) {
                if (left || !print(shard, record)) {
                    left = true;
                    break;
                }
                last = record;
            }
            if (last != null) {
                checkpoint(input.checkpointer(), last);
            }
        }

        private void checkpoint(RecordProcessorCheckpointer checkpointer, KinesisClientRecord record) {
            try {
                checkpointer.checkpoint(record.sequenceNumber(), record.subSequenceNumber());
            } catch (Exception error) {
                throw new IllegalStateException("cannot checkpoint " + shard, error);
            }
        }

        @Override
        public void leaseLost(LeaseLostInput input) {
            OUT.println("lost\t" + shard);
        }

        @Override
        public void shardEnded(ShardEndedInput input) {
            if (left) {
                // Something was left over: the other side has to read it.
                throw new IllegalStateException("records of " + shard + " were left over on purpose");
            }
            try {
                input.checkpointer().checkpoint();
            } catch (Exception error) {
                throw new IllegalStateException("cannot checkpoint the end of " + shard, error);
            }
            OUT.println("end\t" + shard);
        }

        @Override
        public void shutdownRequested(ShutdownRequestedInput input) {
            OUT.println("release\t" + shard);
        }
    }
}
