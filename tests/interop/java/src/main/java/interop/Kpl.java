package interop;

import com.google.common.util.concurrent.ListenableFuture;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.kinesis.producer.KinesisProducer;
import software.amazon.kinesis.producer.KinesisProducerConfiguration;
import software.amazon.kinesis.producer.UserRecordResult;

/**
 * Puts numbered records with the KPL and its native daemon.
 *
 * <p>Reads numbers of records from stdin, a line each; puts so many, waits until all are acknowledged, and answers with
 * {@code put TAB first TAB end}. Every third record has an explicit hash key.
 */
public final class Kpl {
    private Kpl() {}

    public static void main(String[] arguments) throws Exception {
        Options options = new Options(arguments, "stream", "host", "port", "prefix", "keys", "temporary");
        String stream = options.text("stream");
        String prefix = options.text("prefix");
        int keys = options.number("keys", 50);
        StaticCredentialsProvider credentials =
                StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test"));
        KinesisProducer producer = new KinesisProducer(new KinesisProducerConfiguration()
                .setCredentialsProvider(credentials)
                .setRegion("us-east-1")
                .setKinesisEndpoint(options.text("host"))
                .setKinesisPort(options.number("port"))
                .setStsEndpoint(options.text("host"))
                .setStsPort(options.number("port"))
                .setVerifyCertificate(false)
                .setMetricsLevel("none")
                .setLogLevel("warning")
                .setTempDirectory(options.text("temporary"))
                .setRecordMaxBufferedTime(100)
                .setRecordTtl(30_000));
        int next = 0;
        try (var lines = new java.io.BufferedReader(new java.io.InputStreamReader(System.in))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                int first = next;
                int end = first + Integer.parseInt(line.trim());
                List<ListenableFuture<UserRecordResult>> answers = new ArrayList<>();
                for (; next < end; next++) {
                    String key = "key-" + next % keys;
                    BigInteger hash = BigInteger.ONE.shiftLeft(128).divide(BigInteger.valueOf(keys))
                            .multiply(BigInteger.valueOf(next % keys));
                    ByteBuffer data = ByteBuffer.wrap((prefix + next).getBytes(StandardCharsets.UTF_8));
                    answers.add(producer.addUserRecord(stream, key, next % 3 == 0 ? hash.toString() : null, data));
                    // Spread over several of the daemon's buffering times, so that a reshard falls in between.
                    if (next % 100 == 99) {
                        Thread.sleep(20);
                    }
                }
                producer.flush();
                for (ListenableFuture<UserRecordResult> answer : answers) {
                    UserRecordResult result = answer.get(60, TimeUnit.SECONDS);
                    if (!result.isSuccessful()) {
                        throw new IllegalStateException("a record was not put: " + result.getAttempts());
                    }
                }
                System.out.println("put\t" + first + "\t" + end);
            }
        }
        producer.flushSync();
        producer.destroy();
        System.exit(0);
    }
}
