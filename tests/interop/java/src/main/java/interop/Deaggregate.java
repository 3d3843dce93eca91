package interop;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.http.apache.ApacheHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.kinesis.KinesisClient;
import software.amazon.awssdk.services.kinesis.model.PutRecordsRequestEntry;
import software.amazon.awssdk.services.kinesis.model.PutRecordsResultEntry;
import software.amazon.kinesis.retrieval.AggregatorUtil;
import software.amazon.kinesis.retrieval.KinesisClientRecord;

/**
 * A router as it is usually written for Lambda in Java, for the benchmarks: the KCL's de-aggregation takes aggregates
 * apart, a field of the JSON payload says which stream a record is for, the SDK puts each record on its own. The event
 * is a file as benches/router.rs writes it. Prints how many records were put.
 */
public final class Deaggregate {
    /** The service's limits for one call. */
    private static final int MOST_ENTRIES = 500;

    private static final int MOST_BYTES = 5 << 20;

    private static final ObjectMapper JSON = new ObjectMapper();

    private Deaggregate() {}

    public static void main(String[] arguments) throws Exception {
        // What the benchmarks' sink answers in; the SDK's default is CBOR.
        System.setProperty("aws.cborEnabled", "false");
        Options options = new Options(arguments, "endpoint", "event", "times");
        byte[] text = Files.readAllBytes(Path.of(options.text("event")));
        int times = options.number("times");
        long put = 0;
        try (KinesisClient client = KinesisClient.builder()
                .endpointOverride(URI.create(options.text("endpoint")))
                .region(Region.US_EAST_1)
                .credentialsProvider(StaticCredentialsProvider.create(AwsBasicCredentials.create("bench", "bench")))
                .httpClient(ApacheHttpClient.create())
                .build()) {
            Destination otherwise = new Destination(client, "out-0");
            Map<String, Destination> byType = Map.of("t1", new Destination(client, "out-1"));
            for (int time = 0; time < times; time++) {
                put += handle(JSON.readTree(text), byType, otherwise);
            }
        }
        if (times > 0 && put == 0) {
            throw new IllegalStateException("no record was put");
        }
        System.out.println(put);
    }

    private static long handle(JsonNode event, Map<String, Destination> byType, Destination otherwise)
            throws Exception {
        List<KinesisClientRecord> found = new ArrayList<>();
        for (JsonNode record : event.get("Records")) {
            JsonNode kinesis = record.get("kinesis");
            double seconds = kinesis.get("approximateArrivalTimestamp").asDouble();
            found.add(KinesisClientRecord.builder()
                    .sequenceNumber(kinesis.get("sequenceNumber").asText())
                    .partitionKey(kinesis.get("partitionKey").asText())
                    .approximateArrivalTimestamp(Instant.ofEpochMilli((long) (seconds * 1000)))
                    .data(java.nio.ByteBuffer.wrap(kinesis.get("data").binaryValue()))
                    .build());
        }
        long put = 0;
        for (KinesisClientRecord record : new AggregatorUtil().deaggregate(found)) {
            byte[] data = new byte[record.data().remaining()];
            record.data().get(data);
            String type = JSON.readTree(data).path("type").asText();
            put += byType.getOrDefault(type, otherwise).add(record.partitionKey(), data);
        }
        put += otherwise.flush();
        for (Destination destination : byType.values()) {
            put += destination.flush();
        }
        return put;
    }

    /** A stream, and what waits to be put there. */
    private static final class Destination {
        private final KinesisClient client;
        private final String stream;
        private List<PutRecordsRequestEntry> waiting = new ArrayList<>();
        private int bytes;

        Destination(KinesisClient client, String stream) {
            this.client = client;
            this.stream = stream;
        }

        /** Says how many records were put to make room. */
        long add(String key, byte[] data) {
            int size = key.length() + data.length;
            long put = waiting.size() == MOST_ENTRIES || bytes + size > MOST_BYTES ? flush() : 0;
            waiting.add(PutRecordsRequestEntry.builder()
                    .partitionKey(key)
                    .data(SdkBytes.fromByteArrayUnsafe(data))
                    .build());
            bytes += size;
            return put;
        }

        long flush() {
            long put = 0;
            while (!waiting.isEmpty()) {
                List<PutRecordsRequestEntry> sent = waiting;
                List<PutRecordsResultEntry> results = client.putRecords(request ->
                                request.streamName(stream).records(sent))
                        .records();
                waiting = new ArrayList<>();
                for (int place = 0; place < results.size(); place++) {
                    if (results.get(place).errorCode() != null) {
                        waiting.add(sent.get(place));
                    }
                }
                put += sent.size() - waiting.size();
            }
            bytes = 0;
            return put;
        }
    }
}
