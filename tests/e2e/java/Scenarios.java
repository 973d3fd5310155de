// What people do with tus-java-client: java -cp tus-java-client.jar:. Scenarios SCENARIO ENDPOINT FILE
// Prints the upload's URL on the last line of its output; an exception ends it with a status of its own.
import io.tus.java.client.TusClient;
import io.tus.java.client.TusURLMemoryStore;
import io.tus.java.client.TusUpload;
import io.tus.java.client.TusUploader;
import java.io.File;
import java.io.FileInputStream;
import java.net.URL;
import java.util.Map;

public final class Scenarios {
    private static void send(TusUploader uploader, long until) throws Exception {
        uploader.setChunkSize(100_000);
        while (uploader.getOffset() < until && uploader.uploadChunk() > -1) {
            // Goes on until the source has ended.
        }
    }

    public static void main(String[] arguments) throws Exception {
        String scenario = arguments[0];
        TusClient client = new TusClient();
        client.setUploadCreationURL(new URL(arguments[1]));
        client.enableResuming(new TusURLMemoryStore());
        TusUpload upload = new TusUpload(new File(arguments[2]));
        upload.setMetadata(Map.of("filename", "naïve – 文件.bin"));
        TusUploader uploader = client.createUpload(upload);
        switch (scenario) {
            case "plain" -> send(uploader, Long.MAX_VALUE);
            case "several_requests" -> {
                uploader.setRequestPayloadSize(400_000);
                send(uploader, Long.MAX_VALUE);
            }
            case "resume" -> {
                uploader.setRequestPayloadSize(400_000);
                send(uploader, 400_000);
                uploader.finish();
                upload.setInputStream(new FileInputStream(arguments[2]));
                uploader = client.resumeUpload(upload);
                if (uploader.getOffset() != 400_000) {
                    throw new IllegalStateException("resumed at " + uploader.getOffset());
                }
                send(uploader, Long.MAX_VALUE);
            }
            case "resume_complete" -> {
                send(uploader, Long.MAX_VALUE);
                uploader.finish();
                upload.setInputStream(new FileInputStream(arguments[2]));
                uploader = client.beginOrResumeUploadFromURL(upload, uploader.getUploadURL());
                send(uploader, Long.MAX_VALUE);
            }
            default -> throw new IllegalArgumentException(scenario);
        }
        uploader.finish();
        System.out.println(uploader.getUploadURL());
    }
}
