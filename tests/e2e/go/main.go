// What people do with tusgo: main SCENARIO ENDPOINT FILE
// Prints the upload's location on the last line of its output; a panic or an error ends it with a status of its own.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/bdragon300/tusgo"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func expect(err, wanted error) {
	if !errors.Is(err, wanted) {
		panic(fmt.Sprintf("expected %v, got %v", wanted, err))
	}
}

func send(stream *tusgo.UploadStream, data []byte) {
	sent := must(stream.ReadFrom(bytes.NewReader(data)))
	if sent != int64(len(data)) {
		panic(fmt.Sprintf("%d bytes of %d were taken", sent, len(data)))
	}
}

type session struct {
	client   *tusgo.Client
	data     []byte
	metadata map[string]string
}

func (s *session) create(size int64, partial bool) *tusgo.Upload {
	upload := &tusgo.Upload{}
	must(s.client.CreateUpload(upload, size, partial, s.metadata))
	return upload
}

func (s *session) whole(chunk int64, algorithm string) *tusgo.Upload {
	upload := s.create(int64(len(s.data)), false)
	stream := tusgo.NewUploadStream(s.client, upload)
	stream.ChunkSize = chunk
	if algorithm != "" {
		stream = stream.WithChecksumAlgorithm(algorithm)
	}
	send(stream, s.data)
	return upload
}

func (s *session) part(data []byte) tusgo.Upload {
	upload := s.create(int64(len(data)), true)
	send(tusgo.NewUploadStream(s.client, upload), data)
	return *upload
}

// Every refusal must come out as an error of the library, never as a panic in it.
func (s *session) refused() *tusgo.Upload {
	upload := s.create(int64(len(s.data)), false)
	stream := tusgo.NewUploadStream(s.client, upload)
	upload.RemoteOffset = 5
	_, err := stream.ReadFrom(bytes.NewReader(s.data[5:]))
	expect(err, tusgo.ErrOffsetsNotSynced) // 409
	must(stream.Sync())
	stream.ForceClean()
	send(stream, s.data)

	final := tusgo.Upload{}
	must(s.client.ConcatenateUploads(&final, []tusgo.Upload{s.part(s.data[:10]), s.part(s.data[10:20])}, nil))
	final.RemoteSize = 1 << 20
	_, err = tusgo.NewUploadStream(s.client, &final).ReadFrom(bytes.NewReader(s.data))
	expect(err, tusgo.ErrCannotUpload) // 403

	never := tusgo.Upload{Location: s.client.BaseURL.String() + "00000000000000000000000000000000", RemoteSize: 10}
	_, err = tusgo.NewUploadStream(s.client, &never).ReadFrom(bytes.NewReader(s.data[:10]))
	expect(err, tusgo.ErrUploadDoesNotExist) // 404
	_, err = s.client.DeleteUpload(never)
	expect(err, tusgo.ErrUploadDoesNotExist)

	gone := s.create(10, false)
	must(s.client.DeleteUpload(*gone))
	_, err = tusgo.NewUploadStream(s.client, gone).ReadFrom(bytes.NewReader(s.data[:10]))
	expect(err, tusgo.ErrUploadDoesNotExist) // 410
	_, err = s.client.GetUpload(&tusgo.Upload{}, gone.Location)
	expect(err, tusgo.ErrUploadDoesNotExist)

	_, err = s.client.CreateUpload(&tusgo.Upload{}, 1<<60, false, nil)
	expect(err, tusgo.ErrUploadTooLarge) // 413

	bad := s.create(int64(len(s.data)), false)
	broken := &http.Client{Transport: damaging{}}
	client := tusgo.NewClient(broken, s.client.BaseURL)
	_, err = tusgo.NewUploadStream(client, bad).WithChecksumAlgorithm("sha1").ReadFrom(bytes.NewReader(s.data))
	expect(err, tusgo.ErrChecksumMismatch) // 460
	return upload
}

// damaging changes the first byte of every body on its way.
type damaging struct{}

func (damaging) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil && req.Method == http.MethodPatch {
		body := must(io.ReadAll(req.Body))
		body[0] ^= 0xff
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	return http.DefaultTransport.RoundTrip(req)
}

func (s *session) play(scenario string) *tusgo.Upload {
	size := int64(len(s.data))
	switch scenario {
	case "plain":
		return s.whole(2<<20, "")
	case "small_chunks":
		return s.whole(100_003, "")
	case "one_request":
		return s.whole(tusgo.NoChunked, "")
	case "checksum":
		return s.whole(100_003, "sha256")
	case "checksum_trailer":
		return s.whole(tusgo.NoChunked, "sha1")
	case "deferred":
		upload := s.create(tusgo.SizeUnknown, false)
		upload.RemoteSize = size
		stream := tusgo.NewUploadStream(s.client, upload)
		stream.SetUploadSize = true
		stream.ChunkSize = 300_000
		send(stream, s.data)
		return upload
	case "with_creation":
		upload := &tusgo.Upload{}
		taken, _, err := s.client.CreateUploadWithData(upload, s.data[:size/2], size, false, s.metadata)
		check(err)
		if taken != size/2 {
			panic(fmt.Sprintf("%d bytes were taken with the creation", taken))
		}
		send(tusgo.NewUploadStream(s.client, upload), s.data[taken:])
		return upload
	case "concatenate":
		parts := []tusgo.Upload{s.part(s.data[:size/3]), s.part(s.data[size/3:])}
		final := &tusgo.Upload{}
		must(s.client.ConcatenateUploads(final, parts, s.metadata))
		return final
	case "resume":
		upload := s.create(size, false)
		send(tusgo.NewUploadStream(s.client, upload), s.data[:size/2])
		found := tusgo.Upload{}
		must(s.client.GetUpload(&found, upload.Location))
		if found.RemoteOffset != size/2 || found.RemoteSize != size || found.Metadata["filename"] != s.metadata["filename"] {
			panic(fmt.Sprintf("%+v", found))
		}
		send(tusgo.NewUploadStream(s.client, &found), s.data[size/2:])
		return &found
	case "terminate":
		upload := s.whole(2<<20, "")
		must(s.client.DeleteUpload(*upload))
		return upload
	case "refused":
		return s.refused()
	}
	panic("no scenario " + scenario)
}

func main() {
	base := must(url.Parse(os.Args[2]))
	s := &session{
		client:   tusgo.NewClient(http.DefaultClient, base),
		data:     must(os.ReadFile(os.Args[3])),
		metadata: map[string]string{"filename": "naïve – 文件.bin"},
	}
	must(s.client.UpdateCapabilities())
	upload := s.play(os.Args[1])
	fmt.Println(must(base.Parse(upload.Location)).Path)
}
