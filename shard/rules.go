package shard

// rules switches single rules of the law off. The zero value is the law, and no shipped code sets a
// field. The exploration in the tests does, to show that it finds each broken rule.
type rules struct {
	dropUnconfirmed bool // drops without the confirmation of the new owners
	commitPartly    bool // commits and drops without members that never reported
	readyBelow      bool // is ready below the highest epoch that peers report
	dropEarly       bool // drops before the Querier wait
	acceptEarly     bool // takes on an epoch before the drops of the one before it
	dropUnasked     bool // drops although a Querier has not asked the new group
	inheritNewest   bool // a member without a record starts with the newest epoch alone
	inheritAny      bool // takes over an epoch that its own configuration does not have
	readyLiterally  bool // counts epochs of peers that are not committed, with a record too
}
