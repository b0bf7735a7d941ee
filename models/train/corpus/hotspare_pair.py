"""What Hotspare is and how its pair survives a failure: questions and answers.

Each row is (questions, held-out questions, answers).
"""

PAIR = [
    (
        [
            "what is [Hotspare|hotspare]",
            "what's Hotspare",
            "tell me about [Hotspare|hotspare]",
            "explain Hotspare",
            "what does Hotspare do",
            "can you explain [what Hotspare is|Hotspare]",
            "do you know Hotspare",
            "describe Hotspare [in one sentence|briefly|]",
            "Hotspare",
            "who or what is Hotspare",
            "what is this server",
            "what software [is this|am I talking to|runs here]",
            "give me a short description of Hotspare",
        ],
        ["I have never heard of Hotspare, what sort of thing is it"],
        [
            (
                "Hotspare is [a server|an inference server] for large language models, written in"
                " Rust. [when a process, a GPU or a whole machine dies, the running streams go on"
                " on another node|it keeps streams alive when a server dies|it runs as a pair, so"
                " that a standby can take over when the primary dies]."
            ),
            (
                "Hotspare is an LLM server written in Rust. [it speaks the OpenAI API and|it] keeps"
                " [running|open] streams alive when a [process, a GPU or a machine|server or a GPU]"
                " dies."
            ),
            (
                "Hotspare serves language models on one or two servers. if one [of them"
                " dies|fails], the other one continues the [answers|streams], and no token is lost"
                " or doubled."
            ),
        ],
    ),
    (
        [
            "what happens when a [server|machine|node] [dies|fails|crashes|goes down]",
            "what happens if [the primary|a server|a node] [dies|fails|crashes]",
            "what does Hotspare do when [a server|a machine|the primary] [dies|fails|crashes]",
            "my server died, what now",
            "what happens to [my|running|open] streams when a [server|machine] dies",
            "will my stream survive a crash",
            "do I lose tokens when a server [dies|crashes]",
            "what if the primary is lost",
        ],
        ["suppose the power goes out on one machine, what becomes of my answer"],
        [
            (
                "when [a server|the primary] dies, the standby takes over. [running|open] streams"
                " go on there, and no token is lost or doubled."
            ),
            (
                "the other node takes over. it reads the prompt and the tokens that were already"
                " delivered, and then goes on with the [answer|stream]."
            ),
            (
                "the standby [becomes|is promoted to] primary, and your stream continues [where it"
                " stopped|from the last token]."
            ),
        ],
    ),
    (
        [
            "what happens when [a GPU|the GPU] [dies|fails|is lost]",
            "what if my GPU fails",
            "does Hotspare survive a GPU error",
            "what happens when the engine [dies|crashes]",
            "what happens after a CUDA error",
        ],
        ["a graphics card fell off the bus, what does Hotspare do about it"],
        [
            (
                "the engine is a separate process, so a GPU error [cannot take down the server|ends"
                " only the engine]. the front starts it again, and the streams go on on another"
                " engine."
            ),
            (
                "only the engine process ends. the front notices at once, restarts it, and moves"
                " the running streams to another engine."
            ),
        ],
    ),
    (
        [
            "what is [a primary|the primary]",
            "what does primary mean [in Hotspare|here|]",
            "what is the role of the primary",
        ],
        ["the word primary appears in the status, what does it say"],
        [
            "the primary is the node that serves the requests. [its standby is ready to take"
            " over|the standby waits beside it]."
        ],
    ),
    (
        [
            "what is [a standby|the standby]",
            "what does standby mean",
            "what does the standby do",
            "what is a warm standby",
            "what is a standby node",
        ],
        ["why do I pay for a second machine that waits"],
        [
            "the standby is the second node of a pair. [it keeps the model in memory and takes over"
            " when the primary dies|it has the weights loaded and is ready to take over]."
        ],
    ),
    (
        [
            "what is a pair",
            "how does the pair work",
            "how do two nodes work together",
            "what is a pair of nodes",
        ],
        ["draw me a picture in words of two machines that guard each other"],
        [
            "two nodes form a pair: one is the primary, and the other is a warm standby. they send"
            " each other heartbeats, and when the primary falls silent, the standby takes over."
        ],
    ),
    (
        [
            "how does failover work",
            "how does Hotspare do failover",
            "what is failover",
            "explain failover",
            "what does failover mean",
        ],
        ["one machine falls and another stands up, explain that"],
        [
            "failover means that another server takes over when one dies. in Hotspare, the standby"
            " becomes primary and goes on with the running streams."
        ],
    ),
    (
        [
            "how many servers [do I need|does Hotspare need]",
            "do I need two servers",
            "can I use Hotspare with one server",
            "is one server enough",
        ],
        ["I own a single machine, is that a problem"],
        [
            "one server is enough to begin with. with two servers, one is the primary and the other"
            " is a standby that takes over when the primary dies."
        ],
    ),
    (
        [
            "what is the fallback [model|]",
            "what does fallback mean",
            "what is a degraded answer",
            "what happens when no big model can be served",
            "what does degraded mean",
            "what is the degraded ladder",
            "what does Hotspare do when the [big|main] model is gone",
        ],
        ["neither machine can hold the large model any more, who answers me"],
        [
            (
                "when the main model cannot be served anywhere, a smaller fallback model answers,"
                " and the answer says so."
            ),
            (
                "the fallback is a smaller model. it answers when the main model cannot be served,"
                " and the response names the model that gave it."
            ),
            (
                "first the main model here, then the main model on the peer, then a small model,"
                " then a hosted API, and at last an honest error."
            ),
        ],
    ),
    (
        [
            "how do I [run|start|use|launch] [Hotspare|hotspare|the server|it]",
            "how can I [run|start] Hotspare",
            "what is the command to [run|start] Hotspare",
            "which command starts [Hotspare|the server]",
            "how do I serve a model",
            "give me the command [to start|for] Hotspare",
            "how do I get started [with Hotspare|]",
        ],
        ["I am sitting at a terminal, what do I type so that Hotspare comes up"],
        [
            (
                "run `hotspare serve`. it serves a small embedded model on port 8000[, so you need"
                " no download|]."
            ),
            (
                "[type|use] `hotspare serve` [in a terminal|], or `hotspare serve MODEL` for [a"
                " model of your own|another model]."
            ),
            (
                "start it with `hotspare serve`. then send requests to"
                " http://127.0.0.1:8000/v1/chat/completions."
            ),
        ],
    ),
    (
        [
            "[which|what] API does [Hotspare|it|this server] [speak|have|use|support]",
            "is Hotspare compatible with OpenAI",
            "can I use the OpenAI [client|SDK]",
            "does Hotspare support the OpenAI API",
            "which endpoints [are there|does Hotspare have]",
            "how do I send a request",
            "how do I call the API",
        ],
        ["my app was written for OpenAI, must I change it"],
        [
            (
                "Hotspare speaks the OpenAI API. [use /v1/chat/completions for chats and"
                " /v1/completions for plain text|any OpenAI client works with it]."
            ),
            (
                "yes, Hotspare speaks the OpenAI API, so the usual clients work. [just change the"
                " base URL|set the base URL to http://127.0.0.1:8000/v1]."
            ),
        ],
    ),
    (
        [
            "does Hotspare [use|need|support] [CUDA|a GPU|GPUs]",
            "do I need a GPU",
            "can Hotspare run without a GPU",
            "does it run on a CPU",
            "what hardware do I need",
            "which GPUs does Hotspare support",
            "can I run it on my laptop",
        ],
        ["my computer has no graphics card, am I out of luck"],
        [
            "a GPU is optional. Hotspare uses CUDA on NVIDIA GPUs, and it also runs on a CPU.",
            (
                "Hotspare is made for NVIDIA GPUs with CUDA, but it also runs on a CPU[, for"
                " example on a laptop|]."
            ),
        ],
    ),
    (
        ["what is CUDA", "what does CUDA mean", "what is CUDA for"],
        ["four letters that NVIDIA likes, starting with C"],
        ["CUDA lets programs do their work on NVIDIA GPUs. Hotspare uses it when there is a GPU."],
    ),
    (
        ["what is a GPU", "what does GPU mean", "why is a GPU fast"],
        ["which chip does many sums at once"],
        ["a GPU is a chip that does many calculations at once. it makes language models fast."],
    ),
    (
        [
            "[which|what] port does [Hotspare|the server] use",
            "on which port does it listen",
            "what is the default port",
            "what is the address of the server",
            "how do I change the port",
        ],
        ["where should my client connect"],
        [
            "the default port is 8000. [you can change it with --port|use --port to change it].",
            "Hotspare listens on 127.0.0.1, port 8000. use --host and --port to change that.",
        ],
    ),
    (
        [
            "[which|what] language is Hotspare written in",
            "what is Hotspare written in",
            "in which language is Hotspare written",
            "what programming language does Hotspare use",
        ],
        ["if I read the source of Hotspare, which language will I see"],
        ["Hotspare is written in Rust[, and its GPU kernels are written in CUDA C++|]."],
    ),
    (
        [
            "how do I check the health [of the server|]",
            "how do I know that the server is [ready|healthy]",
            "what does /ready [mean|say]",
            "what is /health",
            "where is the status",
            "how can I see the status",
            "what is /ha/status",
        ],
        ["my load balancer wants to know whether to send traffic here, what should it ask"],
        [
            "ask /ready. it says whether a request would be served here now.",
            "use /health and /ready. /ha/status shows the node, its role and its engines.",
            "the status is at /ha/status. it names the node, its role, its peer and its engines.",
        ],
    ),
    (
        [
            "what is the [front|front process]",
            "what does the front do",
            "why are there two processes",
            "what is the engine",
            "what does the engine do",
            "what is the difference between the front and the engine",
        ],
        ["top shows me two programs called hotspare, explain that"],
        [
            (
                "the front handles requests and never touches the GPU. the engine runs the model in"
                " a process of its own[, so that a GPU error cannot take down the front|]."
            ),
            (
                "the engine is the process that runs the model on a device. the front starts it,"
                " watches it and restarts it when it dies."
            ),
        ],
    ),
    (
        [
            "what is the journal",
            "how are streams resumed",
            "how can a stream go on after a crash",
            "how does Hotspare resume a stream",
            "how does replay work",
            "why is no token lost",
        ],
        ["by what trick does an answer continue on another machine"],
        [
            (
                "the journal records the prompt, the settings and every token that was delivered."
                " after a failure, another engine reads them again and goes on."
            ),
            (
                "the front keeps a journal of each request. when an engine fails, the prompt and"
                " the delivered tokens are sent to another engine, which goes on from there."
            ),
        ],
    ),
]
