package listing

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func BenchmarkS3Page(b *testing.B) {
	var doc strings.Builder
	doc.WriteString(s3Head + "<Name>blocks</Name><IsTruncated>false</IsTruncated>")
	for i := range 1000 {
		fmt.Fprintf(
			&doc,
			"<Contents><Key>01ARZ3NDEKTSV4RRFFQ69G5FAV%%2Fchunks%%2F%06d</Key>"+
				"<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&#34;abc&#34;</ETag>"+
				"<Size>1</Size><StorageClass>STANDARD</StorageClass></Contents>",
			i,
		)
	}
	doc.WriteString("</ListBucketResult>")
	page := []byte(doc.String())
	r, err := http.NewRequest(http.MethodGet, "http://h/blocks/?list-type=2", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(page)))
	b.ReportAllocs()
	for b.Loop() {
		s, _ := s3{"blocks"}.scanner(r)
		if why := s.feed(page); why != "" || !s.complete() {
			b.Fatal(why)
		}
	}
}
