package store

// An entry may be in two rings: one of entries that expire at about one time,
// one of its scope's entries, the most recently used first.
const (
	byExpiry = iota
	byScope
	orders
)

// links are the neighbours in a ring: slots, or a head if its bit is set. Zero
// is in no ring.
type links struct{ next, prev uint32 }

const headBit = 1 << 31

func (es *entries[V]) linksOf(order int, id uint32) *links {
	if id&headBit != 0 {
		return &es.heads[order][id&^headBit]
	}
	return &es.at(id).links[order]
}

// grow makes empty rings up to the head number h.
func (es *entries[V]) grow(order int, h uint32) {
	for n := uint32(len(es.heads[order])); n <= h; n++ {
		es.heads[order] = append(es.heads[order], links{n | headBit, n | headBit})
	}
}

func (es *entries[V]) pushFront(order int, h, id uint32) {
	es.insert(order, h|headBit, id)
}

func (es *entries[V]) pushBack(order int, h, id uint32) {
	es.insert(order, es.heads[order][h].prev, id)
}

func (es *entries[V]) insert(order int, after, id uint32) {
	a := es.linksOf(order, after)
	*es.linksOf(order, id) = links{next: a.next, prev: after}
	es.linksOf(order, a.next).prev = id
	a.next = id
}

func (es *entries[V]) unlink(order int, id uint32) {
	l := es.linksOf(order, id)
	if l.next == 0 {
		return
	}
	es.linksOf(order, l.next).prev = l.prev
	es.linksOf(order, l.prev).next = l.next
	*l = links{}
}

func (es *entries[V]) moveToFront(order int, h, id uint32) {
	if es.heads[order][h].next != id {
		es.unlink(order, id)
		es.pushFront(order, h, id)
	}
}

// first and last return 0 for an empty ring.
func (es *entries[V]) first(order int, h uint32) uint32 {
	return slotOnly(es.heads[order][h].next)
}

func (es *entries[V]) last(order int, h uint32) uint32 {
	return slotOnly(es.heads[order][h].prev)
}

func slotOnly(id uint32) uint32 {
	if id&headBit != 0 {
		return 0
	}
	return id
}

// splice moves all of the ring from behind the last of the ring to.
func (es *entries[V]) splice(order int, to, from uint32) {
	first, last := es.first(order, from), es.last(order, from)
	if first == 0 {
		return
	}
	es.heads[order][from] = links{from | headBit, from | headBit}
	end := es.heads[order][to].prev
	es.linksOf(order, end).next = first
	*es.linksOf(order, first) = links{next: es.linksOf(order, first).next, prev: end}
	es.linksOf(order, last).next = to | headBit
	es.heads[order][to].prev = last
}
