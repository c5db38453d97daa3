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
	// slowFactor is how many times the bounds a client may reach whose answers are delivered,
	// however slowly: a dashboard over a slow link is no attack.
	slowFactor = 4
	// patience is how long a client may take none of its answers and counts as reading them.
	patience = 2 * time.Second
	// lookEvery is how often grpc is asked for its streams, and lookAgain how soon it may be asked
	// again.
	lookEvery = time.Second
	lookAgain = 50 * time.Millisecond
	// answerWithin is how long channelz is waited for: it answers at once, but for connections that
	// are stuck in a write, on which it waits for a second.
	answerWithin = 100 * time.Millisecond
	// maxSockets is how many connections are asked: more than there may be at once.
	maxSockets = 4096
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

// active returns the streams of all connections of the process's servers. A connection whose client
// takes nothing of what grpc writes answers late; it is left out.
func (s *streams) active() map[string]int {
	ctx := context.Background()
	answers := make(chan socket, maxSockets)
	asked := 0
	for server, end := int64(0), false; !end; {
		resp, err := s.channelz.GetServers(ctx,
			&channelzpb.GetServersRequest{StartServerId: server})
		if err != nil {
			break
		}
		for _, o := range resp.GetServer() {
			id := o.GetRef().GetServerId()
			asked += s.ask(ctx, id, maxSockets-asked, answers)
			server = id + 1
		}
		end = resp.GetEnd() || len(resp.GetServer()) == 0
	}
	out := map[string]int{}
	late := time.NewTimer(answerWithin)
	defer late.Stop()
	for range asked {
		select {
		case o := <-answers:
			out[o.client] += o.streams
		case <-late.C:
			return out
		}
	}
	return out
}

// socket is what channelz tells of a connection.
type socket struct {
	client  string // "" for one that was closed meanwhile
	streams int
}

// ask asks the connections of a server at once. It returns how many will answer, at most as many as
// answers has room for.
func (s *streams) ask(
	ctx context.Context, server int64, most int, answers chan<- socket,
) (asked int) {
	for id, end := int64(0), false; !end; {
		resp, err := s.channelz.GetServerSockets(ctx,
			&channelzpb.GetServerSocketsRequest{ServerId: server, StartSocketId: id})
		if err != nil {
			return asked
		}
		for _, ref := range resp.GetSocketRef() {
			if asked == most {
				return asked
			}
			id = ref.GetSocketId() + 1
			asked++
			go func() { answers <- s.socket(ctx, ref.GetSocketId()) }()
		}
		end = resp.GetEnd() || len(resp.GetSocketRef()) == 0
	}
	return asked
}

func (s *streams) socket(ctx context.Context, id int64) socket {
	got, err := s.channelz.GetSocket(ctx, &channelzpb.GetSocketRequest{SocketId: id})
	if err != nil {
		return socket{}
	}
	d := got.GetSocket().GetData()
	return socket{
		client:  got.GetSocket().GetRemote().GetUdsAddress().GetFilename(), // see Addr.Network
		streams: int(d.GetStreamsStarted() - d.GetStreamsSucceeded() - d.GetStreamsFailed()),
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
	defer r.mu.Unlock()
	if held.gone {
		return
	}
	r.end(a)
	if bytes == 0 {
		return
	}
	held.tails = append(held.tails, bytes)
	held.unsent += bytes
	r.unsent += bytes
	if r.unsent > r.opts.Unsent && !r.looking && time.Since(r.looked) > lookAgain {
		r.looking = true
		go r.look() // not here: it takes a while if a connection is stuck
	}
}

// Tail is how much of a stream's answer may not have been written when its handler returns, given
// all of its bytes and those of the last message.
func Tail(all, last int64) int64 { return min(all, streamQuota+last) }

// seen is what was known of a connection before grpc was asked for its streams. What is learned is
// not applied to what came later.
type seen struct{ open, tails, ended int }

// look compares the requests that are open with the streams that grpc has, and closes connections
// of clients with too many answers that were not delivered. The caller has set looking.
func (r *Requests) look() {
	before := map[*connRequests]seen{}
	r.mu.Lock()
	for _, client := range r.clients {
		for _, held := range client.conns {
			before[held] = seen{held.open, len(held.tails), held.ended}
		}
	}
	r.mu.Unlock()
	active := r.streams.active()

	var crowds, unread []*Conn
	var surplus []*unsent
	r.mu.Lock()
	r.looked, r.looking = time.Now(), false
	total := 0
	for _, client := range r.clients {
		n := 0
		for conn, held := range client.conns {
			was, ok := before[held]
			streams, known := active[conn.addr.String()]
			if !ok || !known {
				continue // it is new, or stuck in a write that will end it
			}
			last := held.undelivered
			held.undelivered = max(0, streams-max(was.open, held.open))
			held.standing = min(last, held.undelivered)
			delivered := last + was.ended - held.endedThen - held.undelivered
			if held.endedThen = was.ended; delivered > 0 || last == 0 {
				held.readAt = r.looked
			}
			held.reads = r.looked.Sub(held.readAt) < patience
			n += held.standing
			r.forgetDelivered(held, was.tails)
			surplus = append(surplus, held.surplus(streams)...)
		}
		for n > undeliveredPerClient*client.shares {
			worst := client.most(func(o *connRequests) int64 { return int64(o.standing) })
			n -= worst.standing
			crowds = append(crowds, r.lose(worst))
		}
		total += n
	}
	for total > maxUndelivered {
		worst := r.most(func(o *connRequests) int64 { return int64(o.standing) })
		total -= worst.standing
		crowds = append(crowds, r.lose(worst))
	}
	unread = r.tooMuchUnread()
	r.mu.Unlock()
	for _, u := range surplus {
		u.release()
	}
	hangUpAll(crowds, answersUnread, true)
	hangUpAll(unread, answersUnread, false)
}

// tooMuchUnread returns the connections that have to go for the bytes of their answers: those that
// read nothing when there are more than Unsent, all when there are slowFactor times as many. It
// judges by what was there before grpc was asked: of what came later it is not known whether it was
// delivered. It is called with the lock held.
func (r *Requests) tooMuchUnread() (losers []*Conn) {
	var total int64
	for _, client := range r.clients {
		for _, held := range client.conns {
			total += held.unread
		}
	}
	unread := func(o *connRequests) int64 { return o.unread }
	deaf := func(o *connRequests) int64 {
		if o.reads {
			return 0
		}
		return o.unread
	}
	for _, bound := range []struct {
		bytes int64
		of    func(*connRequests) int64
	}{{r.opts.Unsent, deaf}, {slowFactor * r.opts.Unsent, unread}} {
		for total > bound.bytes {
			worst := r.most(bound.of)
			if worst == nil || bound.of(worst) == 0 || total-worst.largest <= bound.bytes {
				break // one answer may be as large as it is
			}
			total -= worst.unread
			losers = append(losers, r.lose(worst))
		}
	}
	return losers
}

// forgetDelivered keeps as many of the first n answers of a connection as were not delivered, the
// largest ones, and all that came later.
func (r *Requests) forgetDelivered(held *connRequests, n int) {
	old, later := held.tails[:n], held.tails[n:]
	slices.SortFunc(old, func(a, b int64) int { return cmp.Compare(b, a) })
	old = old[:min(n, held.undelivered)]
	held.unread, held.largest = 0, 0
	for _, n := range old {
		held.unread += n
		held.largest = max(held.largest, n)
	}
	held.tails = slices.Concat(old, later)
	var sum int64
	for _, n := range held.tails {
		sum += n
	}
	r.unsent += sum - held.unsent
	held.unsent = sum
}

// surplus takes out answers of a connection that are held although it has fewer streams. grpc drops
// an answer without a word if its stream is reset at the moment at which it is written. An answer
// is taken at the second look that finds it, because one that has just ended is not in streams.
func (c *connRequests) surplus(streams int) (out []*unsent) {
	for u := range c.answers {
		if u.looks++; u.looks > 1 && len(c.answers) > streams {
			delete(c.answers, u)
			out = append(out, u)
		}
	}
	return out
}

// watch looks now and then while there are connections with requests.
func (r *Requests) watch() {
	r.mu.Lock()
	running := r.looking
	r.looking = true
	r.mu.Unlock()
	if !running {
		r.look()
	}
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

// hangUpAll closes connections of one event, for which each client is blamed at most once.
func hangUpAll(conns []*Conn, reason string, blame bool) {
	blamed := map[Client]bool{}
	for _, c := range conns {
		client := Client{c.client, c.source.shares}
		c.hangUp(reason, blame && !blamed[client])
		blamed[client] = true
	}
}
