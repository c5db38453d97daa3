package gateway

import (
	"math"

	// Its codec decodes from buffers that are not pooled, because Thanos's label strings point into
	// them.
	_ "github.com/thanos-io/thanos/pkg/extgrpc"
	"github.com/thanos-io/thanos/pkg/info/infopb"
	"github.com/thanos-io/thanos/pkg/store/storepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Client calls a store gateway as a Querier does.
type Client struct {
	Store storepb.StoreClient
	Info  infopb.InfoClient
	conn  *grpc.ClientConn
}

// Dial connects to a gateway.
func Dial(addr string, opts ...grpc.DialOption) (*Client, error) {
	opts = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
	}, opts...)
	conn, err := grpc.NewClient(addr, opts...)
	if err != nil {
		return nil, err
	}
	return &Client{
		Store: storepb.NewStoreClient(conn),
		Info:  infopb.NewInfoClient(conn),
		conn:  conn,
	}, nil
}

// Conn returns the connection, for callers that do not decode answers.
func (c *Client) Conn() *grpc.ClientConn { return c.conn }

func (c *Client) Close() error { return c.conn.Close() }
