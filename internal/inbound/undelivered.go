package inbound

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"
	channelzpb "google.golang.org/grpc/channelz/grpc_channelz_v1"
	"google.golang.org/grpc/channelz/service"
)

const (
	// An answer counts as undelivered from the end of its handler until grpc has written it. Of a
	// client share there may be undeliveredPerClient, over all connections maxUndelivered: each
	// keeps the request's metadata, and up to 64 KiB that the client may still send. Clients that
	// read have a few.
	undeliveredPerClient = 512
	maxUndelivered       = 2048
	// lookEvery is how often grpc is asked for its streams, and lookAgain how soon it may be asked
	// again.
	lookEvery = time.Second
	lookAgain = 50 * time.Millisecond
	// streamQuota is what grpc takes of an answer before its client has read any of it.
	streamQuota = 64 << 10
)

// streams tells how many streams grpc has on each connection, by the address of the client. A
// stream is there until its last frame is written, which a client can prevent for ever by not
// opening its window, and grpc tells this to channelz alone.
type streams struct{ channelz channelzpb.ChannelzServer }

func newStreams() *streams {
	s := &streams{}
	service.RegisterChannelzServiceToServer(registrar{s})
	return s
}

// registrar takes the service instead of serving it.
type registrar struct{ streams *streams }

func (r registrar) RegisterService(_ *grpc.ServiceDesc, impl any) {
	r.streams.channelz = impl.(channelzpb.ChannelzServer)
}

// active returns the streams of all connections of the process's servers.
func (s *streams) active() map[string]int {
	out := map[string]int{}
	for server, end := int64(0), false; !end; {
		resp, err := s.channelz.GetServers(context.Background(),
			&channelzpb.GetServersRequest{StartServerId: server})
		if err != nil {
			return out
		}
		for _, o := range resp.GetServer() {
			s.sockets(o.GetRef().GetServerId(), out)
			server = o.GetRef().GetServerId() + 1
		}
		end = resp.GetEnd() || len(resp.GetServer()) == 0
	}
	return out
}

func (s *streams) sockets(server int64, out map[string]int) {
	ctx := context.Background()
	for socket, end := int64(0), false; !end; {
		resp, err := s.channelz.GetServerSockets(ctx,
			&channelzpb.GetServerSocketsRequest{ServerId: server, StartSocketId: socket})
		if err != nil {
			return
		}
		for _, ref := range resp.GetSocketRef() {
			socket = ref.GetSocketId() + 1
			got, err := s.channelz.GetSocket(ctx,
				&channelzpb.GetSocketRequest{SocketId: ref.GetSocketId()})
			if err != nil {
				continue // it was closed meanwhile
			}
			client := got.GetSocket().GetRemote().GetUdsAddress().GetFilename() // see Addr.Network
			d := got.GetSocket().GetData()
			out[client] += int(
				d.GetStreamsStarted() - d.GetStreamsSucceeded() - d.GetStreamsFailed(),
			)
		}
		end = resp.GetEnd() || len(resp.GetSocketRef()) == 0
	}
}

// Ended notes that the handler of a request has returned, with so many bytes of its answer that may
// not have been written yet. Tail computes them for a stream.
func (r *Requests) Ended(ctx context.Context, bytes int64) {
	a, ok := ctx.Value(arrivalKey{}).(*arrival)
	if !ok {
		return
	}
	held := a.conn
	r.mu.Lock()
	if held.gone {
		r.mu.Unlock()
		return
	}
	r.end(a)
	if bytes > 0 {
		held.tails = append(held.tails, bytes)
		held.unsent += bytes
		r.unsent += bytes
	}
	look := r.unsent > r.opts.Unsent && time.Since(r.looked) > lookAgain
	r.mu.Unlock()
	if look {
		r.look()
	}
}

// Tail is how much of a stream's answer may not have been written when its handler returns, given
// all of its bytes and those of the last message.
func Tail(all, last int64) int64 { return min(all, streamQuota+last) }

// look compares the requests that are open with the streams that grpc has, and closes connections
// of clients with too many answers that were not delivered.
func (r *Requests) look() {
	active := r.streams.active()
	var losers []*Conn
	r.mu.Lock()
	r.looked = time.Now()
	total := 0
	for _, client := range r.clients {
		n := 0
		for conn, held := range client.conns {
			held.undelivered = max(0, active[conn.addr.String()]-held.open)
			n += held.undelivered
			r.forgetDelivered(held)
		}
		for n > undeliveredPerClient*client.shares {
			worst := client.most(func(o *connRequests) int64 { return int64(o.undelivered) })
			n -= worst.undelivered
			losers = append(losers, r.lose(worst))
		}
		total += n
	}
	for total > maxUndelivered {
		worst := r.most(func(o *connRequests) int64 { return int64(o.undelivered) })
		total -= worst.undelivered
		losers = append(losers, r.lose(worst))
	}
	for r.unsent > r.opts.Unsent {
		worst := r.most(func(o *connRequests) int64 { return o.unsent })
		if worst == nil || len(worst.tails) <= 1 && worst.unsent == r.unsent {
			break // the only answer may be as large as it is
		}
		losers = append(losers, r.lose(worst))
	}
	r.mu.Unlock()
	hangUpAll(losers, answersUnread)
}

// forgetDelivered keeps of the answers of a connection as many as were not delivered, the largest
// ones.
func (r *Requests) forgetDelivered(held *connRequests) {
	if len(held.tails) > held.undelivered {
		slices.SortFunc(held.tails, func(a, b int64) int { return cmp.Compare(b, a) })
		held.tails = slices.Clip(held.tails[:held.undelivered])
	}
	var sum int64
	for _, n := range held.tails {
		sum += n
	}
	r.unsent += sum - held.unsent
	held.unsent = sum
}

// watch looks now and then while there are connections with requests.
func (r *Requests) watch() {
	r.look()
	r.mu.Lock()
	defer r.mu.Unlock()
	for client := range maps.Values(r.clients) {
		if len(client.conns) > 0 {
			r.timer.Reset(lookEvery)
			return
		}
	}
	r.timer = nil
}

// hangUpAll closes connections of one event, for which each client is blamed once.
func hangUpAll(conns []*Conn, reason string) {
	blamed := map[Client]bool{}
	for _, c := range conns {
		client := Client{c.client, c.source.shares}
		c.hangUp(reason, !blamed[client])
		blamed[client] = true
	}
}
