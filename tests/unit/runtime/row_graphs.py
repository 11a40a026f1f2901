"""Graphs in ONNX's text form for the tests of the graph analysis."""

#: ``n`` is the number of rows, ``i`` their indices.
COUNT = "n = Shape <start = 0, end = 1> (x)"

ROW_INDICES = f"""{COUNT} z = Constant <value_ints = [0]> () l = Squeeze (n, z) o = Constant <value_int = 0> ()
    e = Constant <value_int = 1> () i = Range (o, l, e)"""

ROW_WISE = {
    "elementwise": "a = Relu (x) b = Exp (a) y = Sub (b, x)",
    "one constant": "c = Constant <value_float = 2.0> () y = Mul (x, c)",
    "feature mean": "axes = Constant <value_ints = [1]> () m = ReduceMean (x, axes) y = Sub (x, m)",
    "softmax": "y = Softmax <axis = -1> (x)",
    "layer norm": "s = Constant <value_floats = [1.0, 1.0, 2.0, 1.0]> () y = LayerNormalization <axis = -1> (x, s)",
    "feature order": "k = Constant <value_ints = [2]> () y, i = TopK <axis = 1> (x, k)",
    "running sum": "a = Constant <value_int = 1> () y = CumSum (x, a)",
    "flatten": "a = Constant <value_ints = [0, 2, 2]> () b = Reshape (x, a) y = Flatten <axis = 1> (b)",
    "merged and back": """h = Constant <value_ints = [-1, 2]> () m = Reshape (x, h) r = Tanh (m)
        b = Constant <value_ints = [-1, 4]> () y = Reshape (r, b)""",
    "shape arithmetic": """s = Shape (x) i = Constant <value_ints = [0]> () n = Gather (s, i)
        r = Constant <value_ints = [2, 2]> () t = Concat <axis = 0> (n, r) a = Reshape (x, t)
        f = Constant <value_ints = [4]> () u = Concat <axis = 0> (n, f) y = Reshape (a, u)""",
    "transposed and back": "t = Transpose (x) r = Tanh (t) y = Transpose (r)",
    "expand by the rows": """s = Shape <start = 0, end = 1> (x) o = Constant <value_ints = [1]> ()
        t = Concat <axis = 0> (s, o) c = Constant <value_floats = [3.0]> () e = Expand (c, t) y = Add (x, e)""",
    "zeros for each row": "s = Shape (x) z = ConstantOfShape (s) y = Add (x, z)",
    "reversed twice": """b = Constant <value_ints = [-1]> () e = Constant <value_ints = [-9223372036854775807]> ()
        a = Constant <value_ints = [0]> () r = Slice (x, b, e, a, b) t = Tanh (r) y = Slice (t, b, e, a, b)""",
    "stacked twice and cut": "d = Concat <axis = 0> (x, x) t = Tanh (d) y, z = Split <axis = 0, num_outputs = 2> (t)",
    "own numbers": """n = Shape <start = 0, end = 1> (x) a = Constant <value_ints = [0]> () m = Squeeze (n, a)
        o = Constant <value_int = 0> () p = Constant <value_int = 1> () i = Range (o, m, p) y = Gather (x, i)""",
    "last by own number": """n = Shape <start = 0, end = 1> (x) z = Constant <value_ints = [0]> () m = Squeeze (n, z)
        o = Constant <value_int = 0> () p = Constant <value_int = 1> () i = Range (o, m, p)
        c = Constant <value_ints = [1]> () u = Unsqueeze (i, c) g = ArgMax <axis = 1> (x)
        k = Concat <axis = 1> (u, g) v = GatherND (x, k) y = Unsqueeze (v, c)""",
    "constant branch": """c = Constant <value_int = 0> () k = Cast <to = 9> (c) y = If (k) <
        then_branch = t () => (float[a, b] p) { p = CumSum (x, c) },
        else_branch = e () => (float[a, b] q) { q = Neg (x) }>""",
    "loop of fixed length": """n = Constant <value_int = 3> () k = Cast <to = 9> (n) y = Loop (n, k, x) <
        body = b (int64 i, bool c, float[a, b] s) => (bool d, float[a, b] t) { d = Identity (c) t = Tanh (s) }>""",
    "one-wide window along the rows": """a = Constant <value_ints = [0, 1]> () p = Unsqueeze (x, a)
        m = MaxPool <kernel_shape = [1, 2]> (p) y = Squeeze (m, a)""",
    "a row in front": """f = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> () h = Constant <value_ints = [1, 4]> ()
        r = Reshape (f, h) d = Concat <axis = 0> (r, x) t = Tanh (d) b = Constant <value_ints = [1]> ()
        e = Constant <value_ints = [9223372036854775807]> () a = Constant <value_ints = [0]> ()
        y = Slice (t, b, e, a)""",
    "a row behind": """f = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> () h = Constant <value_ints = [1, 4]> ()
        r = Reshape (f, h) d = Concat <axis = 0> (x, r) t = Tanh (d) b = Constant <value_ints = [0]> ()
        e = Constant <value_ints = [-1]> () y = Slice (t, b, e, b)""",
    "depth and its places": f"""h = Constant <value_ints = [0, 1, 2, 2]> () p = Reshape (x, h)
        d = SpaceToDepth <blocksize = 2> (p) m = Constant <value_ints = [-1, 4]> () r = Reshape (d, m) {ROW_INDICES}
        y = Gather (r, i)""",
    "larger pictures": """h = Constant <value_ints = [0, 1, 2, 2]> () p = Reshape (x, h)
        c = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> () r = Resize (p, , c) y = Flatten (r)""",
    "steps of a scan": f"""a = Constant <value_ints = [0, 2, 2]> () r = Reshape (x, a)
        s = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
        body = b (float[n, 2] u) => (float[n, 2] v) {{ v = Tanh (u) }}> (r)
        m = Constant <value_ints = [-1, 4]> () q = Reshape (s, m) {ROW_INDICES} y = Gather (q, i)""",
    "only the shape of others": """f = Constant <value_ints = [0]> () r = Gather (x, f) d = Sub (x, r)
        s = Shape (d) z = ConstantOfShape (s) y = Add (x, z)""",
    "function of the file": "y = own.Twice (x)",
    "own squares": 'e = Einsum <equation = "ij,ij->i"> (x, x) a = Constant <value_ints = [1]> () y = Unsqueeze (e, a)',
}

TWICE = '<domain: "own", opset_import: ["": 20]> Twice (a) => (b) { b = Add (a, a) }'

MIXES = {
    "mean over the rows": ("a = Constant <value_ints = [0]> () m = ReduceMean (x, a) y = Sub (x, m)", "ReduceMean"),
    "largest of all": ("m = ReduceMax <keepdims = 0> (x) y = Div (x, m)", "ReduceMax"),
    "softmax over the rows": ("y = Softmax <axis = 0> (x)", "Softmax"),
    "running sum over the rows": ("a = Constant <value_int = 0> () y = CumSum (x, a)", "CumSum"),
    "order of the rows": ("k = Constant <value_ints = [1]> () y, i = TopK <axis = 0> (x, k)", "TopK"),
    "pairs": ("t = Transpose (x) p = MatMul (x, t) y = MatMul (p, x)", "MatMul"),
    "squares added up": ("g = Gemm <transA = 1> (x, x) y = MatMul (x, g)", "Gemm"),
    "einsum over the rows": ('s = Einsum <equation = "ij->j"> (x) y = Add (x, s)', "Einsum"),
    "first row": ("i = Constant <value_ints = [0]> () f = Gather (x, i) y = Add (x, f)", "Gather"),
    "first rows": (
        """b = Constant <value_ints = [0]> () e = Constant <value_ints = [1]> () f = Slice (x, b, e, b)
        y = Add (x, f)""",
        "Slice",
    ),
    "reversed once": (
        """b = Constant <value_ints = [-1]> () e = Constant <value_ints = [-9223372036854775807]> ()
        a = Constant <value_ints = [0]> () r = Slice (x, b, e, a, b) y = Add (x, r)""",
        "Add",
    ),
    "dynamic quantisation": (
        "q, s, z = DynamicQuantizeLinear (x) y = DequantizeLinear (q, s, z)",
        "DynamicQuantizeLinear",
    ),
    "statistics of training": (
        """c = Constant <value_floats = [1.0, 1.0, 1.0, 1.0]> ()
        y, m, v = BatchNormalization <training_mode = 1> (x, c, c, c, c)""",
        "BatchNormalization",
    ),
    "divided by how many there are": (
        "s = Shape <start = 0, end = 1> (x) n = Cast <to = 1> (s) y = Div (x, n)",
        "Div",
    ),
    "rows that pass": (
        """a = Constant <value_ints = [1]> () s = ReduceSum <keepdims = 0> (x, a) z = Constant <value_float = 0.0> ()
        k = Greater (s, z) y = Compress <axis = 0> (x, k)""",
        "Compress",
    ),
    "a branch by all rows": (
        """m = ReduceMax <keepdims = 0> (x) l = Constant <value_float = 1e9> () c = Greater (m, l) y = If (c) <
        then_branch = t () => (float[a, b] p) { p = Neg (x) },
        else_branch = e () => (float[a, b] q) { q = Identity (x) }>""",
        "If",
    ),
    "a loop by all rows": (
        """m = ReduceMax <keepdims = 0> (x) n = Cast <to = 7> (m) y = Loop (n, , x) <
        body = b (int64 i, bool c, float[a, b] s) => (bool d, float[a, b] t) { d = Identity (c) t = Tanh (s) }>""",
        "Loop",
    ),
    "scan over the rows": (
        """a = Constant <value_ints = [4]> () z = ConstantOfShape (a) l, y = Scan <num_scan_inputs = 1,
        body = b (float[4] s, float[4] r) => (float[4] t, float[4] o) { t = Add (s, r) o = Identity (t) }> (z, x)""",
        "Scan",
    ),
    "places in the batch": ("y = Trilu (x)", "Trilu"),
    "rows put into one": (
        """z = Constant <value_floats = [0.0, 0.0, 0.0, 0.0]> () i = Cast <to = 7> (x) f = Flatten <axis = 1> (i)
        s = ScatterND (z, f, x) y = Add (x, s)""",
        "ScatterND",
    ),
    "run along the rows": (
        """a = Constant <value_ints = [1]> () u = Unsqueeze (x, a) s = Shape (u)
        w = Constant <value_floats = [1.0, 1.0, 1.0, 1.0]> () y, h = RNN <hidden_size = 1> (u, w, w)""",
        "RNN",
    ),
}

#: ``y`` mixes rows unless ``k`` is true. ``w`` is an axis.
_BY_K = """w = Constant <value_int = 0> () y = If (k) <then_branch = t () => (float[a, b] p) { p = Neg (x) },
    else_branch = e () => (float[a, b] q) { q = CumSum (x, w) }>"""

_COORDINATES = f"""{ROW_INDICES} c = Constant <value_ints = [1]> () u = Unsqueeze (i, c) g = ArgMax <axis = 1> (x)
    k = Concat <axis = 1> (u, g)"""

_PICTURES = "h = Constant <value_ints = [0, 1, 2, 2]> () p = Reshape (x, h)"

AS_WIDE = "m = Constant <value_ints = [-1]> () t = Concat <axis = 0> (m, s) r = Reshape (p, t) y = Gather (r, i)"

#: Graphs that mix rows for some values or sizes only, which trial runs easily miss.
MIXES_RARELY = {
    "axis that the caller of a function gives": """t = Transpose (x) o = Constant <value_ints = [1]> ()
        a = own.Filled <v: tensor = int64[1] {1}> (o) m = ReduceMax (t, a) l = Constant <value_floats = [1e8]> ()
        g = Greater (m, l) w = Where (g, m, t) y = Transpose (w)""",
    "sizes in two calls of a function": f"""{ROW_INDICES} a = Constant <value_ints = [2]> () p = own.Largest (x, a)
        b = Constant <value_ints = [1]> () q = own.Largest (x, b) s = Shape <start = 1, end = 2> (q) {AS_WIDE}""",
    "sizes in two branches": f"""{ROW_INDICES} a = Constant <value_ints = [2]> () b = Constant <value_ints = [1]> ()
        s = If (flag) <then_branch = t () => (int64[a] r) {{ v, j = TopK (x, b) r = Shape <start = 1, end = 2> (v) }},
        else_branch = e () => (int64[a] r) {{ v, j = TopK (x, a) r = Shape <start = 1, end = 2> (v) }}>
        p, k = TopK (x, a) {AS_WIDE}""",
    "a branch by an open size": f"""s = Shape <start = 1, end = 2> (open) z = Constant <value_ints = [0]> ()
        e = Squeeze (s, z) k = Cast <to = 9> (e) {_BY_K}""",
    "a number as a boolean": f"""c = Constant <value_int = 2> () b = Cast <to = 9> (c) d = Cast <to = 7> (b)
        e = Equal (c, d) k = Identity (e) {_BY_K}""",
    "a number in a narrow type": f"""c = Constant <value_int = 256> () b = Cast <to = 2> (c) k = Cast <to = 9> (b)
        {_BY_K}""",
    "numbers laid over each other": f"""a = Constant <value_ints = [0, 1]> () f = Constant <value_ints = [1]> ()
        g = Constant <value_ints = [0]> () c = Unsqueeze (a, f) d = Unsqueeze (a, g) e = Mul (c, d)
        h = Constant <value_ints = [-1]> () j = Reshape (e, h) l = Gather (j, f) s = Squeeze (l, g)
        k = Cast <to = 9> (s) {_BY_K}""",
    "a negative size": f"""{COUNT} h = Constant <value_ints = [-1]> () m = Mul (n, h) j = Equal (m, h)
        c = Cast <to = 7> (j) z = Constant <value_ints = [0]> () d = Squeeze (c, z) o = Constant <value_int = 1> ()
        s = Sub (o, d) k = Cast <to = 9> (s) {_BY_K}""",
    "filled in one case": f"""{COUNT} o = Constant <value_ints = [1]> () f = If (flag) <
        then_branch = t () => (int64[a] p) {{ p = Expand (o, n) }},
        else_branch = e () => (int64[a] q) {{ h = ReduceMax <keepdims = 0> (x, o) q = Cast <to = 7> (h) }}>
        j = NonZero (f) z = Constant <value_ints = [0]> () k = Squeeze (j, z) y = Gather (x, k)""",
    "a slice that starts by the count": f"""{COUNT} o = Constant <value_ints = [1]> ()
        h = Constant <value_ints = [9]> () s = Sub (n, o) y = Slice (x, s, h, o)""",
    "a slice up to the count": f"""{COUNT} z = Constant <value_ints = [0]> () o = Constant <value_ints = [1]> ()
        y = Slice (x, z, n, o)""",
    "a slice with steps by the count": f"""{COUNT} z = Constant <value_ints = [0]> ()
        o = Constant <value_ints = [1]> () h = Constant <value_ints = [9]> () s = Add (n, o)
        y = Slice (x, z, h, o, s)""",
    "parts by the count": f"""{COUNT} f = Constant <value_ints = [4]> () d = Sub (f, n) s = Concat <axis = 0> (n, d)
        y, v = Split <axis = 1> (x, s)""",
    "as many as there are rows": f"{COUNT} y, v = TopK <axis = 1> (x, n)",
    "as deep as there are rows": f"""{COUNT} g = ArgMax <axis = 1, keepdims = 0> (x)
        v = Constant <value_floats = [0.0, 1.0]> () y = OneHot (g, n, v)""",
    "a triangle by the count": f"""{COUNT} z = Constant <value_ints = [0]> () l = Squeeze (n, z)
        h = Constant <value_ints = [0, 2, 2]> () r = Reshape (x, h) t = Trilu (r, l) y = Flatten (t)""",
    "two batches taken for one": f"""d = Concat <axis = 0> (x, x) {COUNT} m = Constant <value_ints = [-1]> ()
        t = Concat <axis = 0> (n, m) y = Reshape (d, t)""",
    "a batch or two": f"""d = If (flag) <then_branch = t () => (float[a, b] p) {{ p = Concat <axis = 0> (x, x) }},
        else_branch = e () => (float[a, b] q) {{ q = Identity (x) }}> {COUNT} m = Constant <value_ints = [-1]> ()
        t = Concat <axis = 0> (n, m) y = Reshape (d, t)""",
    "coordinates in another order": f"""{_COORDINATES} s = Unsqueeze (k, c) q = Transpose <perm = [0, 2, 1]> (s)
        v = GatherND (x, q) y = Flatten (v)""",
    "coordinates within rows": f"""{_COORDINATES} h = Constant <value_ints = [0, 2, 2]> () r = Reshape (x, h)
        y = GatherND <batch_dims = 1> (r, k)""",
    "more looks than rows": """h = Constant <value_ints = [-1, 1]> () g = Cast <to = 7> (x) a = Reshape (g, h)
        v = GatherND <batch_dims = 1> (x, a) r = Constant <value_ints = [-1, 4]> () y = Reshape (v, r)""",
    "updates of two batches": f"""{_COORDINATES} t = ReduceMax <keepdims = 0> (x, c) d = Concat <axis = 0> (t, t)
        y = ScatterND (x, k, d)""",
    "pictures of the rows' size": f"""{_PICTURES} q = Constant <value_ints = [4, 1, 2, 2]> () b = Resize (p, , , q)
        y = Flatten (b)""",
    "more pictures than rows": f"""{ROW_INDICES} {_PICTURES} c = Constant <value = float[4] {{2.0, 1.0, 1.0, 1.0}}> ()
        b = Resize (p, , c) f = Flatten (b) y = Gather (f, i)""",
    "more pictures by the count": f"""{_PICTURES} s = Shape (p) c = Cast <to = 1> (s) b = Resize (p, , c)
        f = Flatten (b) {ROW_INDICES} y = Gather (f, i)""",
    "a window that gives fewer": """a = Constant <value_ints = [0, 1]> () p = Unsqueeze (x, a)
        f = Constant <value_floats = [1.0]> () h = Constant <value_ints = [1, 1, 1, 1]> () k = Reshape (f, h)
        m = ConvTranspose <kernel_shape = [1, 1], output_shape = [1, 4]> (p, k) y = Squeeze (m, a)""",
    "a table of the rows": """h = Constant <value_ints = [0, 1, 4]> () r = Reshape (x, h)
        f = Constant <value_ints = [0]> () k = Constant <value_ints = [2]> () t, j = TopK (x, k)
        v = com.microsoft.RotaryEmbedding <num_heads = 1, rotary_embedding_dim = 4> (r, f, t, t) y = Flatten (v)""",
}

RARE_FUNCTIONS = """<domain: "own", opset_import: ["": 20]> Largest (a, k) => (b) { b, i = TopK (a, k) }
<domain: "own", opset_import: ["": 20]> Filled <v> (s) => (b) { b = ConstantOfShape <value: tensor = @v> (s) }"""

MORE_INPUTS = {"flag": "bool flag", "open": "float[p, q] open"}

_PARTS = "p, n = StringSplit (x) z = Constant <value_ints = [0]> () o = Constant <value_ints = [1]> ()"

_BEHIND = f"""{_PARTS} c = Constant <value_string = "%s"> () s = Shape (n) t = Concat <axis = 0> (s, o)
    f = Expand (c, t) q = Concat <axis = 1> (p, f)"""

PADDED = {
    "one that there may not be": (f"{_PARTS} y = Slice (p, z, o, o)", False),
    "one that there always is": (f"{_BEHIND % ''} y = Slice (q, z, o, o)", True),
    "one that is not like padding": (f"{_BEHIND % 'word'} y = Slice (q, z, o, o)", False),
    "the first of what is not like padding": (f"{_BEHIND % 'word'} y = Gather <axis = 1> (q, z)", False),
    "the last": (
        f"""{_PARTS} b = Constant <value_ints = [-1]> () e = Constant <value_ints = [99]> () q = Slice (p, b, e, o)
        y = Gather <axis = 1> (q, z)""",
        False,
    ),
    "two at once": (
        f"""{_PARTS} q, m = StringSplit <delimiter = "a"> (x) r = StringConcat (p, q) y = Gather <axis = 1> (r, z)""",
        False,
    ),
}
