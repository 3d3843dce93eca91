package interop;

import com.google.common.util.concurrent.FutureCallback;
import com.google.common.util.concurrent.Futures;
import com.google.common.util.concurrent.MoreExecutors;
import java.nio.ByteBuffer;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicLong;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.kinesis.producer.KinesisProducer;
import software.amazon.kinesis.producer.KinesisProducerConfiguration;
import software.amazon.kinesis.producer.UserRecordResult;

/**
 * Puts records with the KPL as fast as it takes them, for the benchmarks: the KPL's defaults, but for what the sink
 * needs, and a bound of records on their way, which the KPL itself does not have.
 */
public final class Load {
    private Load() {}

    public static void main(String[] arguments) throws Exception {
        Options options = new Options(arguments, "stream", "host", "port", "records", "bytes", "temporary");
        long records = options.number("records");
        int bytes = options.number("bytes");
        KinesisProducer producer = new KinesisProducer(new KinesisProducerConfiguration()
                .setCredentialsProvider(
                        StaticCredentialsProvider.create(AwsBasicCredentials.create("bench", "bench")))
                .setRegion("us-east-1")
                .setKinesisEndpoint(options.text("host"))
                .setKinesisPort(options.number("port"))
                .setStsEndpoint(options.text("host"))
                .setStsPort(options.number("port"))
                .setVerifyCertificate(false)
                .setMetricsLevel("none")
                .setLogLevel("warning")
                .setTempDirectory(options.text("temporary"))
                // The sink has no limits; the KPL's own would be what is measured.
                .setRateLimit(1_000_000));
        String stream = options.text("stream");
        Semaphore room = new Semaphore(20_000);
        AtomicLong stored = new AtomicLong();
        byte[] data = new byte[bytes];
        java.util.Arrays.fill(data, (byte) 'x');
        for (long number = 0; number < records; number++) {
            room.acquire();
            String key = String.format("session-%04d", number % 1000);
            Futures.addCallback(
                    producer.addUserRecord(stream, key, ByteBuffer.wrap(data)),
                    new FutureCallback<UserRecordResult>() {
                        @Override
                        public void onSuccess(UserRecordResult result) {
                            stored.incrementAndGet();
                            room.release();
                        }

                        @Override
                        public void onFailure(Throwable failure) {
                            failure.printStackTrace();
                            room.release();
                        }
                    },
                    MoreExecutors.directExecutor());
        }
        producer.flushSync();
        producer.destroy();
        if (stored.get() != records) {
            throw new IllegalStateException(stored.get() + " of " + records + " records were stored");
        }
        System.exit(0);
    }
}
