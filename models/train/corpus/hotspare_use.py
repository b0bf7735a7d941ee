"""How Hotspare is run, called and watched, and its models: questions and answers.

Each row is (questions, held-out questions, answers).
"""

USE = [
    (
        [
            "what is continuous batching",
            "can Hotspare serve many users [at once|]",
            "how does batching work",
            "what is the scheduler",
            "what does the scheduler do",
            "how many requests can run [at once|together]",
        ],
        ["fifty people ask at the same moment, does the last one wait for all the others"],
        [
            (
                "with continuous batching, many requests share each step of the model, so that"
                " nobody has to wait for the others to finish."
            ),
            (
                "the scheduler decides which tokens run in the next step. [many requests share each"
                " step|new requests join the running ones]."
            ),
        ],
    ),
    (
        [
            "what is [a|the] prefix cache",
            "what is the prefix cache for",
            "does Hotspare cache prompts",
            "what is prefix caching",
        ],
        ["I send the same long introduction each time, is it read each time"],
        [
            "the prefix cache keeps work that was already done. when two prompts begin with the"
            " same text, that part is read only once."
        ],
    ),
    (
        [
            "what is paged attention",
            "what is a KV block",
            "what is the KV cache",
            "how is the memory [managed|organised]",
            "what is a block",
        ],
        ["in what portions is the memory of a conversation handed out"],
        [
            (
                "the memory of a conversation is kept in blocks of 16 tokens, so that many requests"
                " can share the space."
            ),
            (
                "the KV cache is the memory of the running requests. it is divided into blocks of"
                " 16 tokens."
            ),
        ],
    ),
    (
        [
            "what is [Spark|spark]",
            "what is spark-mini",
            "which models are embedded",
            "which model does Hotspare come with",
            "what is the embedded model",
            "tell me about Spark",
        ],
        ["which little network travels inside the program"],
        [
            (
                "Spark is the small model inside Hotspare. it has about 3.7 million parameters[,"
                " and spark-mini is even smaller|]. it is made for tests and demos."
            ),
            (
                "Hotspare comes with two small models, spark and spark-mini, so that it works"
                " without a download."
            ),
        ],
    ),
    (
        [
            "which model [is this|are you|am I talking to]",
            "what model are you",
            "how many parameters do you have",
            "how big are you",
            "are you a large model",
            "are you GPT",
            "are you ChatGPT",
            "what is your size",
        ],
        ["tell me the size of the network that writes these words"],
        [
            (
                "I am Spark, the small language model embedded in Hotspare. I have about 3.7"
                " million parameters."
            ),
            "I am Spark, a very small model. I have about 3.7 million parameters.",
        ],
    ),
    (
        [
            "how do I serve [another|a different|my own|a bigger] model",
            "can I use another model",
            "how do I load [a model|Qwen|Llama]",
            "which models can Hotspare serve",
            "can Hotspare serve [GGUF files|safetensors]",
        ],
        ["a directory with weights lies on my disk, how do I bring it online"],
        [
            (
                "run `hotspare serve MODEL`, where MODEL is a directory, a GGUF file or a name from"
                " the hub."
            ),
            "yes. give the model to the command, for example `hotspare serve Qwen/Qwen3-4B`.",
        ],
    ),
    (
        [
            "is Hotspare like vLLM",
            "what is the difference between Hotspare and vLLM",
            "can Hotspare replace vLLM",
            "how does Hotspare compare to vLLM",
            "I use vLLM, can I switch",
        ],
        ["why would a team leave vLLM for this"],
        [
            "Hotspare has the same endpoints and flags as vLLM, so it can replace it. it also keeps"
            " streams alive when a server dies."
        ],
    ),
    (
        [
            "what is a heartbeat",
            "how does [the standby|a node] know that the primary is dead",
            "how does Hotspare detect a [failure|dead node]",
            "how long does failover take",
        ],
        ["how quickly would anyone notice that a machine is gone"],
        [
            "the nodes send each other heartbeats. a node that stays silent for about three seconds"
            " counts as dead, and a closed link is noticed sooner."
        ],
    ),
    (
        [
            "what is [split brain|a split brain]",
            "can both nodes be primary",
            "how does Hotspare prevent split brain",
        ],
        ["could two machines both believe that they are in charge"],
        [
            "split brain means that two nodes both act as primary. a lease prevents it, because"
            " only the node that holds the lease may accept new requests."
        ],
    ),
    (
        [
            "what is [a lease|the lease]",
            "what is a lease store",
            "what is etcd for",
            "what is strict mode",
        ],
        ["which paper says who may accept requests"],
        [
            "a lease is a right that only one node can hold. only the holder accepts new requests,"
            " so two nodes never do so at once."
        ],
    ),
    (
        ["what is [an epoch|the epoch]", "what does epoch mean", "what is an epoch for"],
        ["a number grows whenever the leader changes, what is it called"],
        [
            "an epoch is a number that grows with each change of the primary. messages with a lower"
            " epoch are refused."
        ],
    ),
    (
        [
            "how do I [switch over|do a switchover]",
            "what is a switchover",
            "how do I do maintenance",
            "how do I make the standby primary",
            "how do I promote the standby",
        ],
        ["I want to swap the roles of my two servers on purpose"],
        ["run `hotspare ha switchover`. the standby takes over, and the running streams go on."],
    ),
    (
        [
            "how do I [stop|shut down|end] [Hotspare|the server]",
            "what does SIGTERM do",
            "how do I quit",
        ],
        ["I would like to turn it off without hurting anyone"],
        [
            "send SIGTERM to the server. it finishes the running requests and then exits. [a second"
            " signal ends it at once|]"
        ],
    ),
    (
        [
            "is there a demo",
            "how can I see failover [in action|at work]",
            "show me a demo",
            "what is hotspare demo",
        ],
        ["I do not believe that it works, convince me"],
        [
            "run `hotspare demo`. it starts two nodes, kills the primary in the middle of a stream,"
            " and the stream goes on."
        ],
    ),
    (
        [
            "is Hotspare [free|open source]",
            "what is the license of Hotspare",
            "may I use Hotspare at work",
        ],
        ["do I have to pay for it"],
        ["Hotspare is open source under the Apache 2.0 license, so you may use it freely."],
    ),
    (
        [
            "where does the name Hotspare come from",
            "why is it called Hotspare",
            "what does the name Hotspare mean",
        ],
        ["that is a funny name, who thought of it"],
        [
            "a hot spare is a second machine that is running and ready to take over. that is what"
            " Hotspare gives you."
        ],
    ),
    (
        [
            "are there metrics",
            "where are the metrics",
            "how do I monitor Hotspare",
            "does Hotspare support Prometheus",
        ],
        ["I would love a dashboard with numbers"],
        [
            "yes, /metrics gives Prometheus metrics, with the same names as in vLLM.",
            "the metrics are at /metrics, in the format of Prometheus.",
        ],
    ),
    (
        [
            "can I stream answers",
            "does Hotspare support streaming",
            "how do I stream [an answer|tokens]",
        ],
        ["can the words appear one by one"],
        ['yes. set "stream" to true in the request, and the tokens arrive one by one.'],
    ),
    (
        [
            "how do I set an API key",
            "does Hotspare have authentication",
            "how do I protect the server",
        ],
        ["strangers should not be able to use my server"],
        ["start the server with --api-key. requests without the key get the status 401."],
    ),
]
