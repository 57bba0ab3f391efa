# cython: language_level=3, binding=False, auto_pickle=False, nonecheck=True
# cython: annotation_typing=False
"""The compiled half of ``hot``: ``plain_hot`` says the same in Python, and why."""

cimport cython
from cpython.contextvars cimport PyContextVar_Reset, PyContextVar_Set, get_value
from cpython.object cimport PyObject, PyTypeObject, newfunc
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint64_t

import os
import time
from collections import deque

from callmeter.sdk.context import FRAME, NO_LABELS, NOWHERE
from callmeter.sdk.freezing import freeze_map

cdef extern from "Python.h":
    bint PyObject_GC_IsTracked(object)
    void PyErr_SetObject(object, object) except *

cdef extern from *:
    """
    #if defined(__linux__)
    #include <time.h>
    #endif
    #if defined(__linux__) && defined(CLOCK_MONOTONIC)
    #define HOT_HAS_CLOCK 1
    static inline long long hot_clock(void) {
        struct timespec at;
        clock_gettime(CLOCK_MONOTONIC, &at);
        return (long long) at.tv_sec * 1000000000LL + at.tv_nsec;
    }
    #else
    #define HOT_HAS_CLOCK 0
    static inline long long hot_clock(void) { return 0; }
    #endif

    typedef int (*hot_send)(PyObject *, PyObject *, PyObject **);

    static void hot_sends(PyTypeObject *type, hot_send send) {
        type->tp_as_async->am_send = (sendfunc) (void (*)(void)) send;
    }
    """
    ctypedef int (*hot_send)(PyObject *, PyObject *, PyObject **) except -1
    void hot_sends(PyTypeObject *type, hot_send send) noexcept
    bint HOT_HAS_CLOCK
    long long hot_clock() noexcept nogil

cdef object _frame_var = FRAME
cdef object _nowhere = NOWHERE
cdef object _no_labels = NO_LABELS
cdef object _freeze_map = freeze_map
cdef object _perf_counter_ns = time.perf_counter_ns
cdef tuple _nothing = ()
# Whether hot_clock is the clock that Python's time.perf_counter_ns reads.
cdef bint _same_clock = HOT_HAS_CLOCK and (
    time.get_clock_info("perf_counter").implementation
    == "clock_gettime(CLOCK_MONOTONIC)"
)


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Ended:
    """What is queued of a call that has ended, never seen by the garbage collector."""

    cdef readonly object name
    cdef readonly dict fields
    cdef readonly dict later
    cdef readonly object units
    cdef readonly dict extra
    cdef readonly object root
    cdef readonly uint64_t span
    cdef readonly object parent
    cdef readonly object labels
    cdef readonly object anchor
    cdef readonly long long start_ns
    cdef readonly long long end_ns


cdef class HotIntake:
    """What every call touches of the intake."""

    def __cinit__(self):
        self.queue = deque()
        self.open = {}
        self._append = self.queue.append
        self.mono = _perf_counter_ns
        seed = os.urandom(16)
        self._low = int.from_bytes(seed[:8], "little")
        self._high = int.from_bytes(seed[8:], "little") | 1  # not all of it may be 0

    @property
    def mono(self):
        return self._mono

    @mono.setter
    def mono(self, clock):
        self._mono = clock
        self._clock_is_ours = _same_clock and clock is _perf_counter_ns

    def bits(self, int count):
        """So many random bits, 64 at most."""
        return self._draw() >> (64 - count)

    cdef uint64_t _draw(self) noexcept:
        # xoroshiro128++ (Blackman and Vigna, public domain), seeded by the system.
        cdef uint64_t low = self._low, high = self._high, drawn = low + high
        drawn = ((drawn << 17) | (drawn >> 47)) + low
        high ^= low
        self._low = ((low << 49) | (low >> 15)) ^ high ^ (high << 21)
        self._high = (high << 28) | (high >> 36)
        return drawn

    cdef long long _now(self) except? -1:
        return hot_clock() if self._clock_is_ours else self._mono()


cdef class HotCall:
    """A call's values, its begin and its end, and what nearly every call is told."""

    # Before a call's begin, or its end, it does not have what it gets there.

    @property
    def labels(self):
        if self._labels is None:
            raise AttributeError("labels")
        return self._labels

    @labels.setter
    def labels(self, value):
        self._labels = value

    @property
    def anchor(self):
        if self._anchor is None:
            raise AttributeError("anchor")
        return self._anchor

    @anchor.setter
    def anchor(self, value):
        self._anchor = value

    @property
    def span(self):
        if not self._has_span:
            raise AttributeError("span")
        return self._span

    @span.setter
    def span(self, value):
        self._span = value
        self._has_span = True

    @property
    def sampled(self):
        if not self._has_span:
            raise AttributeError("sampled")
        return self._sampled

    @sampled.setter
    def sampled(self, value):
        self._sampled = value

    @property
    def start_ns(self):
        if not self._has_start:
            raise AttributeError("start_ns")
        return self._start_ns

    @start_ns.setter
    def start_ns(self, value):
        self._start_ns = value
        self._has_start = True

    @property
    def end_ns(self):
        if not self._has_end:
            raise AttributeError("end_ns")
        return self._end_ns

    @end_ns.setter
    def end_ns(self, value):
        self._end_ns = value
        self._has_end = True

    @cython.always_allow_keywords(False)
    def __enter__(self):
        self._begin()
        return self

    def __exit__(self, kind, exc, tb):
        self._finish(exc)

    @cython.always_allow_keywords(False)
    def __aenter__(self):
        cdef Instant step = Instant.__new__(Instant)
        step.call = self
        return step

    def __aexit__(self, kind, exc, tb):
        cdef Instant step = Instant.__new__(Instant)
        step.call = self
        step.exc = exc
        step.ends = True
        return step

    @cython.binding(True)  # with a signature to look at
    def usage(self, input: int = 0, output: int = 0, **units: int) -> None:
        """What the call used: tokens in and out (all of them, cached ones included) and any other
        unit, for example ``cache_read=``, ``reasoning=``, ``image=``. A later call replaces it.
        """
        self.units = (input, output, units or None)

    @cython.binding(True)
    def set(self, /, **attributes: object) -> None:
        """Add attributes. ``user``, ``session``, ``node``, ``finish_reason``, ``response_model``,
        ``service_tier``, ``http_status`` and ``attempts`` are fields of their own.
        """
        cdef dict given = attributes
        if PyObject_GC_IsTracked(given):
            given = _freeze_map(given)
        if self.later is None:
            self.later = given
        else:
            self.later.update(given)

    cdef int _begin(self) except -1:
        cdef HotIntake intake = self.intake
        cdef HotCall around
        frame = None if self.extra is None else self.extra.get("frame")
        if frame is None:
            frame = get_value(_frame_var)
        self._span = intake._draw() >> 2
        self._has_span = True
        if isinstance(frame, HotCall):
            around = <HotCall> frame
            self._labels = around._labels
            self.parent = around.span
            self.root = around if around.root is None else around.root
            self._sampled = around._sampled
        elif frame is _nowhere:
            self._labels = _no_labels
            self.parent = None
        else:
            self._labels = frame.labels
            self.parent = frame.span
            if self.parent is not None:
                self.root = frame if frame.root is None else frame.root
                self._sampled = frame.sampled
        if self.parent is None:
            # A trace begins. Its root is not itself: a cycle would wait for the collector.
            self.root = None
            self._sampled = intake.keeps_all or intake.keeps()
        self._token = PyContextVar_Set(_frame_var, self)
        self._anchor = intake.anchor
        self._start_ns = intake._now()
        self._has_start = True
        if self._sampled:
            intake.open[self] = None
        return 0

    cdef int _finish(self, exc) except -1:
        cdef HotIntake intake = self.intake
        cdef Ended ended
        self._end_ns = intake._now()
        self._has_end = True
        token = self._token
        if token is not None:
            self._token = None
            try:
                PyContextVar_Reset(_frame_var, token)
            except ValueError:
                # Ended by another task or the garbage collector: nothing to put back here.
                pass
        if exc is not None:
            self.error(exc)
        try:
            del intake.open[self]
        except KeyError:
            self._not_open()
            return 0
        ended = Ended.__new__(Ended)
        ended.name = self.name
        ended.fields = self.fields
        ended.later = self.later
        ended.units = self.units
        ended.extra = self.extra
        ended.root = self.root
        ended.span = self._span
        ended.parent = self.parent
        ended.labels = self._labels
        ended.anchor = self._anchor
        ended.start_ns = self._start_ns
        ended.end_ns = self._end_ns
        intake._append(ended)
        if len(intake.queue) >= intake.alarm:
            intake.ring()
        return 0


@cython.final
@cython.no_gc
@cython.freelist(8)
cdef class Instant:
    """The begin or the end of a call as ``async with`` has it: a coroutine that never waits."""

    cdef HotCall call
    cdef object exc
    cdef bint ends

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        PyErr_SetObject(StopIteration, self._run())

    def send(self, value):
        """Do it, as a coroutine does."""
        PyErr_SetObject(StopIteration, self._run())

    def throw(self, kind, value=None, tb=None):
        """It was cancelled before it was done."""
        self.call = self.exc = None
        raise kind if value is None else value

    def close(self):
        """It will not be done."""
        self.call = self.exc = None

    cdef object _run(self):
        call, exc = self.call, self.exc
        if call is None:
            raise RuntimeError("cannot reuse already awaited coroutine")
        self.call = self.exc = None
        if self.ends:
            call._finish(exc)
            return None
        call._begin()
        return call


cdef int _send(PyObject *step, PyObject *value, PyObject **result) except -1:
    # What await calls; the interpreter's PYGEN_RETURN is 0 and PYGEN_ERROR -1.
    result[0] = NULL
    done = (<Instant> step)._run()
    Py_INCREF(done)
    result[0] = <PyObject *> done
    return 0


hot_sends(<PyTypeObject *> Instant, _send)


cdef class HotDefault:
    """The default instance, as far as every call looks at it."""

    cdef public HotIntake intake


@cython.binding(True)
def generation_with(HotDefault default, type call_type, absent, long_way):
    """The quick ``generation``: calls of ``call_type`` for the default's intake."""
    cdef newfunc new = (<PyTypeObject *> call_type).tp_new

    def generation(name=None, /, **fields):
        cdef HotIntake intake = default.intake
        cdef HotCall call
        cdef dict given = fields
        if intake is None:
            return absent()
        if (
            not PyObject_GC_IsTracked(given)
            and "model" in given
            and "parent" not in given
            and "inputs" not in given
            and "estimate" not in given
        ):
            call = <HotCall?> new(call_type, <PyObject *> _nothing, NULL)
            call.intake = intake
            call.name = name
            call.fields = given
            return call
        return long_way(name, **given)

    return generation
